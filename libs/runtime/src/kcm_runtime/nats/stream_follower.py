"""Following a stream: every message in order, without trusting the client library's consumers.

``Follower`` is an ordered consumer: an ephemeral push consumer without acknowledgements, whose
deliveries are counted. When a number is missing, when heartbeats stop, or after a reconnection, a
new consumer resumes after the follower's anchor. The client library's key-value watch received
nothing for up to 18 seconds after a server restart; this one resumes within a second.

A stream that ends before its anchor, or that was recreated, was rolled back: after the anchor
nothing would ever come. It is read from its start again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Final

from kcm_schemas.codes import Code, KcmError
from nats.aio.msg import Msg
from nats.js import errors as js_errors

from kcm_runtime.backoff import Backoff
from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing, is_no_stream
from kcm_runtime.nats.ports import Entry, LogFollower
from kcm_runtime.nats.push_consumer import (
    HEARTBEAT_S,
    SILENCE_S,
    heartbeat,
    push_consumer,
    sent,
)

log = logging.getLogger(__name__)

REACH_S: Final = 5.0
"""Seconds to wait for an acknowledged position: it is delivered at once, or not at all."""

CLOSE_S: Final = 5.0
"""Seconds that a follower has to end."""

Receive = Callable[[Entry], None]
"""Called in the stream's order, synchronously: no await between arrival and effect. Must not raise:
an entry is delivered once."""


class SequentialFollower:
    """A ``LogFollower`` that resumes after the last delivery, and only receives."""

    def __init__(self, receive: Receive) -> None:
        self._receive: Final = receive
        self._last = 0

    def anchor(self) -> int:
        """Return the sequence of the last delivery."""
        return self._last

    def resumed(self, behind: int) -> None:
        """Resume from there."""
        self._last = behind

    def went_back(self) -> None:
        """Read everything again."""
        self._last = 0

    def receive(self, entry: Entry) -> None:
        """Forward an entry."""
        self._last = entry.sequence
        self._receive(entry)


class Follower:
    """Delivers all messages of a stream under ``subject``, from the first one on."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subject: str,
        follower: LogFollower,
        clock: Clock,
        bytes_per_s: int | None = None,
    ) -> None:
        """``bytes_per_s`` limits the broker's rate; ``None`` means no limit."""
        self._connection: Final = connection
        self._stream: Final = stream
        self._named: Final = fields(stream=stream)
        self._subject: Final = subject
        self._follower: Final = follower
        self._clock: Final = clock
        self._bytes_per_s: Final = bytes_per_s
        self._closing = False
        self._created: datetime | None = None
        self._last = 0
        self._stored = 0
        self._delivered = 0
        self._heard = 0.0
        self._again = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """Stream sequence up to which everything was delivered."""
        return self._last

    def again(self) -> None:
        """Recreate the consumer, from the anchor."""
        self._again.set()

    async def reached(self, sequence: int, timeout_s: float = REACH_S) -> None:
        """Wait until everything up to ``sequence`` is delivered; raises ``unavailable``."""
        until = self._clock.elapsed() + timeout_s
        while self._last < sequence:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), until - self._clock.elapsed())
            except TimeoutError:
                raise KcmError(
                    Code.UNAVAILABLE,
                    f"{self._stream} was delivered up to {self._last}, not up to {sequence}, within"
                    f" {timeout_s:g} s",
                ) from None

    async def start(self) -> None:
        """Begin, and return once all messages that were stored before are delivered."""
        self._connection.on_reconnect(self._again.set)
        self._task = asyncio.get_running_loop().create_task(self._run())
        caught_up = asyncio.get_running_loop().create_task(self._caught_up.wait())
        await asyncio.wait({self._task, caught_up}, return_when=asyncio.FIRST_COMPLETED)
        caught_up.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Stop following."""
        # A flag besides the cancellation, which the client library may swallow.
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_S)

    async def _run(self) -> None:
        backoff = Backoff(0.1, 2.0)
        while not self._closing:
            self._again.clear()
            try:
                async with self._consumer():
                    backoff.reset()
                    await self._listen()
                continue
            except js_errors.NotFoundError as error:
                if is_no_stream(error) and not self._caught_up.is_set():
                    raise StreamMissing(self._stream) from None
                level = logging.CRITICAL if is_no_stream(error) else logging.WARNING
                log.log(level, "the broker lacks the stream, or its consumer", extra=self._named)
            except Exception as error:  # noqa: BLE001 - without following there are no kills
                log.warning("following a stream: %s", describe(error), extra=self._named)
            await backoff.wait()

    async def _listen(self) -> None:
        """Return when the consumer has to be recreated."""
        while self._clock.elapsed() - self._heard < SILENCE_S and not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), HEARTBEAT_S)
            if self._again.is_set():
                return
        if not self._closing:
            log.warning(
                "following a stream: no heartbeat; recreating the consumer", extra=self._named
            )

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[None]:
        first = await self._continue_at()
        self._delivered = 0
        self._heard = self._clock.elapsed()
        async with push_consumer(
            self._connection,
            self._stream,
            self._subject,
            first,
            self._on_message,
            bytes_per_s=self._bytes_per_s,
        ) as consumer:
            if not (consumer.pending or self._delivered):
                self._caught_up.set()
            yield

    async def _continue_at(self) -> int:
        """Return the sequence at which to resume: 1 if the stream was rolled back or recreated."""
        info = await self._connection.jetstream().stream_info(self._stream)
        behind = self._follower.anchor()
        recreated = self._created not in (None, info.created)
        self._created = info.created
        self._stored = info.state.last_seq
        if recreated or info.state.last_seq < behind:
            log.error("the stream was rolled back: reading it from its start", extra=self._named)
            self._follower.went_back()
            behind = 0
        self._last = behind
        self._follower.resumed(behind)
        return behind + 1

    async def _on_message(self, message: Msg) -> None:
        self._heard = self._clock.elapsed()
        headers = heartbeat(message)
        if headers is not None:
            self._on_heartbeat(headers)
            return
        sequence = message.metadata.sequence
        if sequence.consumer != self._delivered + 1:
            self._again.set()
            return
        self._delivered = sequence.consumer
        try:
            stored_ms = int(message.metadata.timestamp.timestamp() * 1000)
            self._follower.receive(Entry(sequence.stream, message.subject, message.data, stored_ms))
        except Exception as error:  # noqa: BLE001 - the client library would hide it
            log.critical(
                "an entry had no effect: %s",
                describe(error),
                extra=fields(stream=self._stream, sequence=sequence.stream),
            )
        self._last = sequence.stream
        self._progress.set()
        if message.metadata.num_pending == 0:
            self._caught_up.set()

    def _on_heartbeat(self, headers: Mapping[str, str]) -> None:
        """Check that all deliveries arrived, and whether the follower has caught up.

        The broker counts a message that is damaged on its disk as pending and never delivers it,
        even to a new consumer: by that count alone this would never have caught up.
        """
        if sent(headers) > self._delivered:
            self._again.set()
        elif not self._caught_up.is_set():
            if int(headers.get("Nats-Last-Stream", "0")) < self._stored:
                self._again.set()  # a new consumer has a new count
                return
            log.warning(
                "the broker counts messages that it does not deliver: they expired meanwhile or "
                "are damaged on its disk (Storage faults in docs/deployment.md)",
                extra=self._named,
            )
            self._caught_up.set()
