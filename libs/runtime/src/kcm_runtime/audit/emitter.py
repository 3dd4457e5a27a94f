"""The audit emitter: every instance records what it does, without ever waiting for it.

Theory. ``emit`` is called on the purge path and on every request, so it only encodes an event and
puts it into a bounded buffer: no await, no I/O, no exception. A task of its own packs consecutive
events into a signed batch and stores it in the region's audit stream until the broker has
acknowledged, one batch at a time and in order. A batch carries no message id: what was stored twice
is recognised by emitter, incarnation and first number.

What cannot be recorded is not done: services refuse data requests while ``has_room`` is false. That
is when the buffer is nearly full, and at once when the broker says that the audit stream is full:
that does not pass by itself, and what waits in memory is lost with the process. A
purge goes on all the same, and if even the reserve for it is used up, events are dropped, their
numbers are missing for ever, and an ``audit.dropped`` event says how many.

The broker is not believed when it acknowledges: a batch that it threw away is missing in the
Auditor's chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_schemas import limits, subjects
from kcm_schemas.audit import AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name
from kcm_schemas.signed import Kind

from kcm_runtime.audit.event_chain import EventBuffer, Run
from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.store_health import Trouble
from kcm_runtime.nats.streams import StoreFull, put

log = logging.getLogger(__name__)

LINGER_S: Final = 0.25
"""Seconds that traffic's first event of a batch waits for company: a signature, two ``fsync`` and a
verification for many events."""

RUSH_S: Final = 0.05
"""Seconds that everything else waits. A kill makes an event in every instance at once: what records
it must not take the processors from those that have yet to purge."""

TRAFFIC: Final = ("data.", "keys.")
"""How the types of events that come with every request begin."""

HEARTBEAT_S: Final = 10.0
"""Seconds without an event after which one says that the instance is alive; the Auditor reports an
emitter that is quiet for several times as long."""

RETRY_S: Final = 0.1
"""Seconds before the first repetition of a batch that was not acknowledged; doubles."""

RETRY_MAX_S: Final = 2.0
"""Seconds between repetitions at most: a broker that comes back is used soon."""

FLUSH_S: Final = 5.0
"""Seconds that closing waits for the last events to be acknowledged."""

COUNT_MAX: Final = (1 << 63) - 1
"""The largest count that a message can carry."""

Deliver = Callable[[str, bytes], Awaitable[object]]
"""Stores a body under a subject and returns when that is acknowledged; raises ``KcmError``."""


class AuditEmitter:
    """Records this incarnation's events. Used from the event loop's thread only."""

    def __init__(
        self,
        connection: Connection,
        membership: InstanceContext,
        clock: Clock,
        *,
        deliver: Deliver | None = None,
        buffer: EventBuffer | None = None,
    ) -> None:
        self._membership: Final = membership
        self._clock: Final = clock
        self._subject: Final = subjects.audit(membership.region, membership.name)
        self._buffer: Final = buffer if buffer is not None else EventBuffer()
        self._wake: Final = asyncio.Event()
        self._hurry: Final = asyncio.Event()
        self._drained: Final = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last = clock.elapsed()
        self._unsent = 0
        self._closed = False
        self._ended = False
        self._full = False

        async def store(subject: str, body: bytes) -> object:
            return await put(connection, subject, body)

        self._deliver: Final = deliver or store
        connection.stores.listen(self._on_store)
        # Before anything else can be emitted: the first event of an incarnation is its start.
        self.emit(EventType.INSTANCE_START)

    @property
    def has_room(self) -> bool:
        """Whether a data request may begin; when false, refuse it with ``unavailable``."""
        return not self._closed and not self._broken and not self._full and self._buffer.has_room

    @property
    def refusal(self) -> str:
        """Why a data request is refused while ``has_room`` is false, and what to do."""
        if self._full:
            return (
                "the region's audit stream is full, and what cannot be recorded is not done: "
                "see 'kcm audit status'"
            )
        return "the audit trail cannot take more"

    @property
    def _broken(self) -> bool:
        return any(task.done() for task in self._tasks)

    @property
    def pending(self) -> int:
        """Events that are not acknowledged yet."""
        return len(self._buffer) + self._unsent

    def emit(
        self,
        type: EventType,  # noqa: A002 - the name of the field
        *,
        actor: str | None = None,
        tenant: str | None = None,
        service: str | None = None,
        target: str = "",
        hold: bytes | None = None,
        code: Code = Code.OK,
        count: int = 0,
        failed: int = 0,
        detail: str = "",
    ) -> None:
        """Record an event. Never waits and never raises; ``count`` is in records or keys.

        A name that is none, which a refused request may bring, is recorded as absent, a longer
        ``detail`` or ``target`` is cut. ``detail`` must never carry keys, payloads or contexts.
        """
        if self._closed:
            log.error("an event of type %s came after the last one", type)
            return
        self._report_loss()
        self._add(
            self._encode(type, actor, tenant, service, target, hold, code, count, failed, detail)
        )
        if not type.startswith(TRAFFIC):
            self._hurry.set()

    async def start(self) -> None:
        """Begin to send, and to say now and then that the instance is alive."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._pump()), loop.create_task(self._beat())]
        for task in self._tasks:
            task.add_done_callback(_note_end)

    async def close(self, flush_s: float = FLUSH_S) -> None:
        """Emit ``instance.stop`` and send what waits, for at most ``flush_s`` seconds."""
        if self._closed:
            return
        self.emit(EventType.INSTANCE_STOP)
        self._closed = True
        self._hurry.set()
        if self._tasks and not self._broken:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), flush_s)
        # ``asyncio.wait_for`` of Python 3.11 may forget a cancellation: this is remembered.
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.pending:
            log.error("%d audit events could not be stored before the end", self.pending)

    def _encode(
        self,
        type: EventType,  # noqa: A002
        actor: str | None = None,
        tenant: str | None = None,
        service: str | None = None,
        target: str = "",
        hold: bytes | None = None,
        code: Code = Code.OK,
        count: int = 0,
        failed: int = 0,
        detail: str = "",
    ) -> bytes:
        event = AuditEvent(
            type=type.value,
            time_ms=self._clock.unix_ms(),
            actor=_name(actor),
            tenant=_name(tenant),
            service=_name(service),
            target=_text(target, limits.TARGET_MAX),
            hold=hold,
            code=code,
            count=min(max(count, 0), COUNT_MAX),
            failed=min(max(failed, 0), COUNT_MAX),
            detail=_text(detail, limits.TEXT_MAX),
        )
        return encode(event)

    def _add(self, event: bytes) -> None:
        self._last = self._clock.elapsed()
        if self._buffer.add(event):
            self._drained.clear()
            self._wake.set()
            if self._buffer.fills_batch:
                self._hurry.set()
        elif self._buffer.dropped == 1:
            log.error("audit events are being dropped: the broker does not take them")

    def _report_loss(self) -> None:
        lost = self._buffer.dropped
        if lost and self._buffer.has_room:
            dropped = self._encode(
                EventType.AUDIT_DROPPED, code=Code.UNAVAILABLE, count=lost, failed=lost
            )
            if self._buffer.add(dropped):
                self._buffer.note_reported()

    async def _pump(self) -> None:
        while not self._ended:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), LINGER_S)
            if not (self._closed or self._buffer.fills_batch):
                await asyncio.sleep(RUSH_S)
            self._wake.clear()
            if not self._closed:
                self._hurry.clear()
            while not self._ended and (run := self._buffer.take()) is not None:
                self._unsent = len(run.events)
                if await self._store(self._signed(run)):
                    self._unsent = 0
                if not self._closed:
                    self._report_loss()
            self._drained.set()

    def _on_store(self, stream: str, trouble: Trouble | None) -> None:
        """Record that a stream is not stored any more, or is again; sent once this one is."""
        match trouble:
            case None:
                self.emit(EventType.STORE_BACK, detail=stream)
            case Trouble.FULL:
                self.emit(EventType.STORE_FULL, code=Code.UNAVAILABLE, detail=stream)
            case Trouble.SILENT:
                self.emit(EventType.STORE_SILENT, code=Code.UNAVAILABLE, detail=stream)

    def _signed(self, run: Run) -> bytes:
        batch = AuditBatch(
            emitter=self._membership.name,
            incarnation=self._membership.incarnation,
            role=self._membership.role,
            region=self._membership.region,
            first=run.first,
            previous=run.previous,
            events=run.events,
        )
        return encode(self._membership.identity.sign(Kind.AUDIT, batch))

    async def _store(self, body: bytes) -> bool:
        """Store one batch, repeating it until it is acknowledged; False at the end."""
        wait = RETRY_S
        while not self._ended:
            try:
                await self._deliver(self._subject, body)
            except StoreFull:
                if not self._full:
                    log.error("the audit stream is full: data requests are refused until it is not")
                self._full = True
            except KcmError as error:
                log.warning("audit events wait: %s", error.code.value)
            except Exception as error:  # noqa: BLE001 - recording must not end by a strange answer
                log.warning("audit events wait: %s", describe(error))
            else:
                self._full = False
                return True
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(wait * 2, RETRY_MAX_S)
        return False

    async def _beat(self) -> None:
        while True:
            quiet = self._clock.elapsed() - self._last
            if quiet >= HEARTBEAT_S:
                self.emit(EventType.INSTANCE_ALIVE)
                quiet = 0.0
            await asyncio.sleep(max(HEARTBEAT_S - quiet, 0.05))


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("no more events are recorded: %s", describe(error))


def _text(text: str, most: int) -> str:
    return text[:most].encode("utf-8", "replace").decode()


def _name(text: str | None) -> str | None:
    return text if text is not None and is_name(text) else None
