"""The audit emitter: every instance records its actions, and never waits for that.

Theory of operation. ``emit`` is called on the purge path and for every request, so it only encodes
an event and puts it into a bounded buffer: no await, no I/O, no exception. A task packs consecutive
events into a signed batch and stores it in the region's audit stream until the broker acknowledges
it, one batch at a time and in order. A batch has no message id: duplicates are recognised by
emitter, incarnation and first number.

An action that cannot be recorded is not done: components refuse data requests while ``has_room`` is
false. It is false when the buffer is nearly full, and as soon as the broker reports that the audit
stream is full: that does not pass by itself, and events in memory are lost with the process. Purges
always continue. If they use up even their reserve, events are dropped: their numbers stay missing,
and an ``audit.dropped`` event has their count.

An acknowledgement of the broker is not trusted: a batch that it discarded is missing in the
Auditor's chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_schemas import limits, subjects
from kcm_schemas.audit import AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name
from kcm_schemas.signed import Kind

from kcm_runtime.audit.event_chain import EventBuffer, Run
from kcm_runtime.backoff import Backoff
from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.store_health import Trouble
from kcm_runtime.nats.streams import StoreFull, put

log = logging.getLogger(__name__)

LINGER_S: Final = 0.25
"""Seconds that the first traffic event of a batch waits for others: one signature, two ``fsync``
and one verification then serve many events."""

RUSH_S: Final = 0.05
"""Seconds that all other events wait. A kill makes an event in every instance at once: recording it
must not compete with instances that have not purged yet."""

TRAFFIC: Final = ("data.", "keys.")
"""Prefixes of the types of events that every request causes."""

HEARTBEAT_S: Final = 10.0
"""Seconds without an event after which a heartbeat event is sent. The Auditor reports an emitter
that is silent for several times as long."""

RETRY_S: Final = 0.1
"""Seconds before a batch that was not acknowledged is sent again, the first time; doubles."""

RETRY_MAX_S: Final = 2.0
"""The most seconds between two attempts: a broker that returns is used soon."""

FLUSH_S: Final = 5.0
"""Seconds that ``close`` waits for the acknowledgement of the last events."""

COUNT_MAX: Final = (1 << 63) - 1
"""The largest count that a message can carry."""

Deliver = Callable[[str, bytes], Awaitable[object]]
"""Stores a body under a subject, and returns once it is acknowledged; raises ``KcmError``."""


class AuditEmitter:
    """Records the events of this incarnation. Used from the event loop's thread only."""

    def __init__(
        self,
        connection: Connection,
        me: InstanceContext,
        clock: Clock,
        *,
        deliver: Deliver | None = None,
        buffer: EventBuffer | None = None,
    ) -> None:
        self._me: Final = me
        self._named: Final = fields(instance=me.name, region=me.region)
        self._clock: Final = clock
        self._subject: Final = subjects.audit(me.region, me.name)
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
        # Before any other event: the first event of an incarnation is its start.
        self.emit(EventType.INSTANCE_START)

    @property
    def has_room(self) -> bool:
        """Whether a data request may begin; if not, refuse it with ``unavailable``."""
        return not self._closed and not self._broken and not self._full and self._buffer.has_room

    @property
    def refusal(self) -> str:
        """Why a data request is refused while ``has_room`` is false, and the remedy."""
        if self._full:
            return (
                "the region's audit stream is full, and requests that cannot be recorded are "
                "refused: see 'kcm audit status'"
            )
        return "the audit buffer is full, and requests that cannot be recorded are refused"

    @property
    def _broken(self) -> bool:
        return any(task.done() for task in self._tasks)

    @property
    def pending(self) -> int:
        """Events that are not acknowledged yet."""
        return len(self._buffer) + self._unsent

    def emit(  # noqa: PLR0913 - one argument for each field of an event
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

        A name that violates the grammar (a refused request can have one) is recorded as absent; a
        ``detail`` or ``target`` that is too long is truncated. ``detail`` must never contain keys,
        payloads or contexts.
        """
        if self._closed:
            log.error("an event of type %s came after the end", type, extra=self._named)
            return
        self._report_loss()
        self._add(
            self._encode(type, actor, tenant, service, target, hold, code, count, failed, detail)
        )
        if not type.startswith(TRAFFIC):
            self._hurry.set()

    async def start(self) -> None:
        """Begin to send events and heartbeats."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._pump()), loop.create_task(self._beat())]
        for task in self._tasks:
            task.add_done_callback(_note_end)

    async def close(self, flush_s: float = FLUSH_S) -> None:
        """Emit ``instance.stop`` and send waiting events, for at most ``flush_s`` seconds."""
        if self._closed:
            return
        self.emit(EventType.INSTANCE_STOP)
        self._closed = True
        self._hurry.set()
        if self._tasks and not self._broken:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), flush_s)
        # ``asyncio.wait_for`` of Python 3.11 can swallow a cancellation: the flag remembers it.
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.pending:
            log.error(
                "%d audit events were not stored before the end", self.pending, extra=self._named
            )

    def _encode(  # noqa: PLR0913, PLR0917 - the same
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
            log.error("audit events are dropped: the buffer is full", extra=self._named)

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
        """Record that a stream is not stored, or is stored again; sent once the audit stream is."""
        match trouble:
            case None:
                self.emit(EventType.STORE_BACK, detail=stream)
            case Trouble.FULL:
                self.emit(EventType.STORE_FULL, code=Code.UNAVAILABLE, detail=stream)
            case Trouble.SILENT:
                self.emit(EventType.STORE_SILENT, code=Code.UNAVAILABLE, detail=stream)

    def _signed(self, run: Run) -> bytes:
        batch = AuditBatch(
            emitter=self._me.name,
            incarnation=self._me.incarnation,
            role=self._me.role,
            region=self._me.region,
            first=run.first,
            previous=run.previous,
            events=run.events,
        )
        return encode(self._me.identity.sign(Kind.AUDIT, batch))

    async def _store(self, body: bytes) -> bool:
        """Store one batch, with retries until it is acknowledged; returns ``False`` at the end."""
        backoff = Backoff(RETRY_S, RETRY_MAX_S, jitter=(0.5, 1.0))
        while not self._ended:
            try:
                await self._deliver(self._subject, body)
            except StoreFull:
                if not self._full:
                    log.error(
                        "the audit stream is full: data requests are refused meanwhile",
                        extra=self._named,
                    )
                self._full = True
            except KcmError as error:
                log.warning("audit events wait: %s", error, extra=self._named)
            except Exception as error:  # noqa: BLE001 - an unexpected reply must not end recording
                log.warning("audit events wait: %s", describe(error), extra=self._named)
            else:
                self._full = False
                return True
            await backoff.wait()
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
        log.critical("audit events are not recorded any more: %s", describe(error))


def _text(text: str, most: int) -> str:
    return text[:most].encode("utf-8", "replace").decode()


def _name(text: str | None) -> str | None:
    return text if text is not None and is_name(text) else None
