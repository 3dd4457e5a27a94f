"""The broker as ports for the kill switch.

In production, NATS implements them (``connection``, ``streams``). The simulation implements them
with brokers that lose, delay, repeat and reorder messages, that split into a majority and a
minority, and whose disks roll back. The code above the ports is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from kcm_schemas.codes import Code, KcmError


class Delivery(Protocol):
    """A message of an account: its subject, its body, and the subject for a reply."""

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
        """The subject for a reply; empty if none is expected."""
        ...


class NobodyListens(KcmError):
    """The broker reports that no client serves a subject; on the wire ``unavailable``.

    Only this error is about the other side: any other ``unavailable`` can be a local problem.
    """

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "no instance serves this at the moment")


class NotAllowed(KcmError):
    """The broker does not let this client write to a subject; on the wire ``unavailable``.

    A broker may say so of any subject, so to callers it is no refusal of an instance.
    """

    def __init__(self) -> None:
        text = (
            "the broker does not let this client send the request: its credentials lack the right"
        )
        super().__init__(Code.UNAVAILABLE, text)


OnDelivery = Callable[[Delivery], Awaitable[None]]
"""Called for the messages of a subscription, one at a time."""


class PubSub(Protocol):
    """An account of the broker: at-most-once delivery, no buffering.

    Every method raises ``KcmError``: ``unavailable``, ``deadline_exceeded`` or ``too_large``.
    """

    @property
    def times_connected(self) -> int:
        """How many connections there were: a new number means a new connection."""
        ...

    async def subscribe(self, subject: str, callback: OnDelivery, queue: str = "") -> None:
        """Call ``callback`` for every message, one at a time; also after a reconnection."""
        ...

    async def unsubscribe(self, subject: str) -> None:
        """Stop receiving the messages of a subject."""
        ...

    async def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """Send, while connected."""
        ...

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send and wait for one reply; raises ``NobodyListens`` if the broker reports that."""
        ...

    async def flush(self) -> None:
        """Wait until the broker has received everything that was published."""
        ...

    async def move(self) -> None:
        """Leave the node of a clustered broker for another one; with a single node, do nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message; ``time_ms`` is the broker's time of arrival, 0 if not known."""

    sequence: int
    subject: str
    data: bytes
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class StreamLeader:
    """The node that leads a stream, and how many messages it has."""

    node: str
    messages: int


class StreamLog(Protocol):
    """A stream that keeps the last message of every subject: a region's control stream.

    Raises ``KcmError``: ``unavailable`` without an acknowledgement (the message may be stored
    nevertheless), ``conflict`` if a compare-and-set lost.
    """

    async def put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        """Store a message and return its sequence, acknowledged by a majority.

        ``expected`` is the sequence of the subject's last message (0: there is none). ``ttl`` lets
        the message expire, for example ``60s``.
        """
        ...

    async def last(self, subject: str) -> Entry | None:
        """Return the last message of a subject as the stream's leader has it, or ``None``.

        A leader that was replaced and does not know it answers with old data.
        """
        ...

    async def leading(self) -> StreamLeader:
        """Return the node that answers for the stream, and how many messages it counts."""
        ...

    async def move(self) -> None:
        """Go to another node of a clustered broker: this one does not acknowledge."""
        ...

    def follow(self, follower: LogFollower) -> Subscription:
        """Deliver all messages in the stream's order, once ``Subscription.start`` was awaited."""
        ...


class LogFollower(Protocol):
    """The receiver of a log. All methods are synchronous: no await between arrival and effect."""

    def anchor(self) -> int:
        """Return the sequence after which a recreated consumer resumes.

        It is not the last delivery: if the log was rolled back meanwhile, that sequence may belong
        to another message now. 0 reads the log from its start.
        """
        ...

    def resumed(self, behind: int) -> None:
        """Deliveries begin (again) after ``behind``; messages above it are delivered again."""
        ...

    def went_back(self) -> None:
        """The log was replaced or rolled back: it is read from its start."""
        ...

    def receive(self, entry: Entry) -> None:
        """Take one message; an empty body has no meaning: a message expires without notice."""
        ...


class Subscription(Protocol):
    """A running delivery to a follower."""

    @property
    def position(self) -> int:
        """Sequence up to which everything was delivered."""
        ...

    async def start(self) -> None:
        """Begin, and return once all messages that were stored before are delivered."""
        ...

    async def close(self) -> None:
        """End the delivery."""
        ...

    def again(self) -> None:
        """Recreate the consumer, from the anchor."""
        ...

    async def reached(self, sequence: int, timeout_s: float = 5.0) -> None:
        """Wait until everything up to ``sequence`` is delivered; raises ``unavailable``."""
        ...
