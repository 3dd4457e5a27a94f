"""A region's audit stream in memory: bounded, refusing when full, emptied from below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kcm_runtime.audit.stream import StoreFacts
from kcm_runtime.nats.ports import Entry, LogFollower
from kcm_runtime.nats.streams import StoreFull
from kcm_schemas.codes import Code, KcmError


@dataclass
class AuditBroker:
    """The stream itself, shared by everybody who is connected."""

    room: int = 1 << 20
    created: int = 1_000_000
    entries: list[Entry] = field(default_factory=list)
    last: int = 0
    purges: list[int] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(len(entry.data) for entry in self.entries)

    @property
    def first(self) -> int:
        return self.entries[0].sequence if self.entries else self.last + 1

    def store(self, body: bytes, *, time_ms: int = 0, emitter: str = "gw-eu") -> int:
        if self.room and self.used + len(body) > self.room:
            raise StoreFull
        self.last += 1
        self.entries.append(Entry(self.last, f"kcm.v1.eu.audit.{emitter}", body, time_ms))
        return self.last

    def drop(self, through: int) -> None:
        """Delete from below, as a purge or somebody with the broker's password does."""
        self.entries = [entry for entry in self.entries if entry.sequence > through]

    def go_back(self, to: int) -> None:
        """The disk has what it had before."""
        self.entries = [entry for entry in self.entries if entry.sequence <= to]
        self.last = to


class FakeAuditStore:
    """Implements ``AuditStore``; ``before_purge`` may raise, as a crash or a cut would."""

    def __init__(self, broker: AuditBroker) -> None:
        self.broker = broker
        self.connected = True
        self.before_purge: Callable[[], None] = lambda: None
        self.following: FakeAuditFollowing | None = None

    async def facts(self) -> StoreFacts:
        self._check()
        broker = self.broker
        return StoreFacts(broker.created, broker.first, broker.last, broker.used, broker.room)

    async def purge(self, through: int) -> None:
        self._check()
        assert through > 0
        self.before_purge()
        self.broker.purges.append(through)
        self.broker.drop(through)

    def follow(self, follower: LogFollower) -> FakeAuditFollowing:
        self.following = FakeAuditFollowing(self.broker, follower)
        return self.following

    def _check(self) -> None:
        if not self.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")


class FakeAuditFollowing:
    """Implements ``Following``; delivers when it is told to."""

    def __init__(self, broker: AuditBroker, follower: LogFollower) -> None:
        self._broker = broker
        self._follower = follower
        self._created = 0
        self._at = 0
        self._anew = True

    @property
    def position(self) -> int:
        return self._at

    async def start(self) -> None:
        self.deliver()

    async def close(self) -> None:
        """Nothing runs by itself."""

    def again(self) -> None:
        self._anew = True

    async def reached(self, sequence: int, timeout_s: float = 5.0) -> None:
        raise NotImplementedError

    def deliver(self) -> None:
        """Everything that is stored and was not delivered."""
        if self._anew:
            self._anew = False
            behind = self._follower.anchor()
            another = self._created not in (0, self._broker.created)
            self._created = self._broker.created
            if another or self._broker.last < behind:
                self._follower.went_back()
                behind = 0
            self._at = behind
            self._follower.resumed(behind)
        for entry in list(self._broker.entries):
            if entry.sequence > self._at:
                self._at = entry.sequence
                self._follower.receive(entry)
