"""What the kill switch needs of a broker, as ports.

Production gives it NATS (``connection``, ``streams``). The simulation gives it brokers that lose,
delay, repeat and reorder, that split into a majority and a minority, and whose disks roll back. The
code in between is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from kcm_schemas.codes import Code, KcmError


class Arrived(Protocol):
    """A message of an account: what it came on, what it says, where an answer goes."""

    @property
    def subject(self) -> str:
        """The subject on which it was sent."""
        ...

    @property
    def data(self) -> bytes:
        """The body."""
        ...

    @property
    def reply(self) -> str:
        """Where an answer goes; empty when nobody waits for one."""
        ...


class NobodyListens(KcmError):
    """The broker says that nobody listens where something was asked; on the wire ``unavailable``.

    Only this is a word on the others: every other ``unavailable`` may be this side's own trouble.
    """

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "nobody serves this at the moment")


OnArrival = Callable[[Arrived], Awaitable[None]]
"""Called for one message of a subscription after another."""


class Messages(Protocol):
    """An account of the broker: at most once, and nothing is kept for later.

    Everything raises ``KcmError``: ``unavailable``, ``deadline_exceeded`` or ``too_large``.
    """

    @property
    def times_connected(self) -> int:
        """How often there was a connection: another number, another one."""
        ...

    async def subscribe(self, subject: str, callback: OnArrival, queue: str = "") -> None:
        """Call ``callback`` for every message, one after another; also after a reconnect."""
        ...

    async def unsubscribe(self, subject: str) -> None:
        """Stop receiving what ``subscribe`` asked for."""
        ...

    async def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """Send, while connected."""
        ...

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send and wait for one answer; raises ``NobodyListens`` where the broker says so."""
        ...

    async def flush(self) -> None:
        """Wait until the broker has everything that was published."""
        ...

    async def move(self) -> None:
        """Leave the node of a clustered broker for another one; without one, nothing happens."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message; ``time_ms`` is when the broker says that it came, 0 when not asked."""

    sequence: int
    subject: str
    data: bytes
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Leading:
    """Which node leads a stream, and how many messages it has."""

    node: str
    messages: int


class Log(Protocol):
    """A stream that keeps the last message of every subject: a region's control stream.

    Raises ``KcmError``: ``unavailable`` when nobody acknowledged (the message may be stored all the
    same), ``conflict`` when a compare-and-set lost.
    """

    async def put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        """Store a message and return its sequence, acknowledged by a majority.

        ``expected`` is the sequence of the subject's last message (0: there is none); ``ttl`` lets
        the message expire, as in ``60s``.
        """
        ...

    async def last(self, subject: str) -> Entry | None:
        """The last message of a subject as the stream's leader has it, or ``None``.

        A leader that was deposed and does not know it answers with old data.
        """
        ...

    async def leading(self) -> Leading:
        """Which node answers for the stream, and how many messages it counts."""
        ...

    async def move(self) -> None:
        """Go to another node of a clustered broker: this one does not acknowledge."""
        ...

    def follow(self, follower: LogFollower) -> Following:
        """Deliver everything, in the order of the stream, once ``Following.start`` was awaited."""
        ...


class LogFollower(Protocol):
    """Who follows a log. All of it is synchronous: no await between arrival and effect."""

    def anchor(self) -> int:
        """The sequence behind which to go on when the consumer has to be made anew.

        Not the last delivery: when the log went back meanwhile, what was delivered last may stand
        for something else now. 0 reads the log from its start.
        """
        ...

    def resumed(self, behind: int) -> None:
        """Deliveries begin (again) behind ``behind``; what was above it is delivered again."""
        ...

    def went_back(self) -> None:
        """The log is another one than before, or shorter: it is read from its start."""
        ...

    def receive(self, entry: Entry) -> None:
        """Take one message; an empty body says nothing: what expires goes without a word."""
        ...


class Following(Protocol):
    """A running follower."""

    @property
    def position(self) -> int:
        """Sequence through which everything was delivered."""
        ...

    async def start(self) -> None:
        """Begin, and return once everything that was stored before is delivered."""
        ...

    async def close(self) -> None:
        """End."""
        ...

    def again(self) -> None:
        """Make the consumer anew, from the anchor."""
        ...

    async def reached(self, sequence: int, timeout_s: float = 5.0) -> None:
        """Wait until everything through ``sequence`` is delivered; raises ``unavailable``."""
        ...
