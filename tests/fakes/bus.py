"""A connection in memory: streams that keep one message for each subject, and what was sent.

As strict as the broker where it matters: compare-and-set, sequences that rise, and an own error for
a subject that has nothing. ``before`` is awaited before every operation of the store: a test fails,
delays or interleaves there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kcm_runtime.nats.jetstream_errors import CONFLICTS, NO_MESSAGE
from kcm_runtime.nats.store_health import Stores
from nats.js import errors as js_errors
from nats.js.api import PubAck, RawStreamMsg, StreamConfig, StreamInfo, StreamState


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def elapsed(self) -> float:
        return self.now

    def unix_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once, with a turn of the loop for everybody else."""
        self.now += seconds
        await asyncio.sleep(0)


@dataclass
class Message:
    """What the client library hands to a callback."""

    data: bytes
    reply: str = ""
    subject: str = ""


async def nothing(operation: str, subject: str) -> None:
    """Let every operation pass."""


@dataclass
class Stream:
    """JetStream with ``max_msgs_per_subject=1``."""

    stored: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    sequence: int = 0
    conflicts: int = 0
    before: Callable[[str, str], Awaitable[None]] = nothing
    forgets: set[str] = field(default_factory=set)
    """Subjects of which every message is acknowledged and gone at once: a real broker does that
    to those whose last message it lost to a damaged disk, until it is restarted."""

    async def get_last_msg(self, stream: str, subject: str) -> RawStreamMsg:
        await self.before("last", subject)
        if subject not in self.stored:
            raise js_errors.NotFoundError(code=404, err_code=NO_MESSAGE)
        sequence, data = self.stored[subject]
        return RawStreamMsg(subject=subject, seq=sequence, data=data)

    async def stream_info(self, stream: str) -> StreamInfo:
        await self.before("info", stream)
        state = StreamState(len(self.stored), 0, 0, self.sequence, 0)
        return StreamInfo(StreamConfig(), state)

    async def publish(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None
    ) -> PubAck:
        await self.before("put", subject)
        expected = (headers or {}).get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None and int(expected) != self.stored.get(subject, (0, b""))[0]:
            # A replicated stream has two words for the same thing.
            self.conflicts += 1
            codes = sorted(CONFLICTS)
            raise js_errors.BadRequestError(code=400, err_code=codes[self.conflicts % len(codes)])
        self.sequence += 1
        if subject not in self.forgets:
            self.stored[subject] = (self.sequence, body)
        return PubAck(stream="S", seq=self.sequence)


@dataclass
class Bus:
    """Implements what the services use of ``Connection``."""

    stream: Stream = field(default_factory=Stream)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    stores: Stores = field(default_factory=Stores)
    connected: bool = True
    over: str = ""

    def jetstream(self) -> Stream:
        return self.stream

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        pass

    async def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        self.sent.append((subject, body))
