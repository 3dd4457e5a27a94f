"""A region's control stream in memory, as strict as a broker, with its faults.

``Stream`` is the stream; ``FakeLog`` is one incarnation's connection to it. It stores by
compare-and-set, keeps the last message of every subject, and drops expired messages silently. It
can lose acknowledgements, roll back, and be recreated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kcm_runtime.nats.ports import Entry, LogFollower, StreamLeader
from kcm_schemas.codes import Code, KcmError

Hook = Callable[[str, str], Awaitable[None]]
"""Awaited with the operation and the subject, before it has an effect."""


async def nothing(operation: str, subject: str) -> None:
    """Let every operation pass at once."""


@dataclass
class Stream:
    """JetStream with one message for each subject. Every incarnation has a number of its own."""

    entries: dict[str, Entry] = field(default_factory=dict)
    sequence: int = 0
    incarnation: int = 1
    leader: str = "one"
    followers: list[FakeSubscription] = field(default_factory=list)
    history: list[Entry] = field(default_factory=list)
    """Everything that was ever stored, for tests to look at."""
    forgets: set[str] = field(default_factory=set)
    """Subjects of which every message is acknowledged and gone at once: a real broker does that
    to those whose last message it lost to a damaged disk, until it is restarted."""

    def store(self, subject: str, data: bytes) -> int:
        self.sequence += 1
        if subject in self.forgets:
            return self.sequence
        entry = Entry(self.sequence, subject, data)
        self.entries[subject] = entry
        self.history.append(entry)
        for follower in list(self.followers):
            follower.kick()
        return self.sequence

    def last_of(self, subject: str) -> int:
        entry = self.entries.get(subject)
        return 0 if entry is None else entry.sequence

    def behind(self, sequence: int) -> list[Entry]:
        found = [entry for entry in self.entries.values() if entry.sequence > sequence]
        return sorted(found, key=lambda entry: entry.sequence)

    def expire(self, subject: str) -> None:
        """The subject's message is too old: the broker removes it silently."""
        del self.entries[subject]

    def snapshot(self) -> tuple[dict[str, Entry], int]:
        return dict(self.entries), self.sequence

    def go_back(self, to: tuple[dict[str, Entry], int], *, restart: bool = True) -> None:
        """Roll back to an earlier state of the disk. That takes a restart, which ends consumers."""
        self.entries, self.sequence = dict(to[0]), to[1]
        if restart:
            self.restart()

    def recreate(self) -> None:
        """An operator deleted the stream and created it again."""
        self.entries, self.sequence = {}, 0
        self.incarnation += 1
        self.restart()

    def restart(self) -> None:
        for follower in list(self.followers):
            follower.again()


class FakeLog:
    """Implements ``kcm_runtime.nats.ports.StreamLog`` over a ``Stream``."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.before: Hook = nothing
        self.connected = True
        self.moves = 0
        self.acks_to_lose = 0
        self.puts: list[str] = []
        self.following: FakeSubscription | None = None

    async def put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        assert ttl is None or (ttl.endswith("s") and int(ttl[:-1]) > 0)
        self.check_connection()
        await self.before("put", subject)
        await asyncio.sleep(0)
        self.check_connection()
        self.puts.append(subject)
        if expected is not None and expected != self.stream.last_of(subject):
            raise KcmError(Code.CONFLICT)
        sequence = self.stream.store(subject, body)
        await asyncio.sleep(0)
        await self.before("ack", subject)
        if self.acks_to_lose or not self.connected:
            self.acks_to_lose = max(0, self.acks_to_lose - 1)
            raise KcmError(Code.UNAVAILABLE, "no acknowledgement arrived")
        return sequence

    async def move(self) -> None:
        self.moves += 1

    async def last(self, subject: str) -> Entry | None:
        self.check_connection()
        await self.before("last", subject)
        await asyncio.sleep(0)
        self.check_connection()
        return self.stream.entries.get(subject)

    async def leading(self) -> StreamLeader:
        self.check_connection()
        await self.before("leading", "")
        await asyncio.sleep(0)
        self.check_connection()
        return StreamLeader(self.stream.leader, len(self.stream.entries))

    def follow(self, follower: LogFollower) -> FakeSubscription:
        """The first one is the incarnation's own; another one reads the stream once more."""
        made = FakeSubscription(self, follower)
        self.following = self.following or made
        return made

    def disconnect(self) -> None:
        """The connection is gone: nothing is sent, nothing arrives."""
        self.connected = False
        if self.following is not None:
            self.following.paused = True

    def reconnect(self) -> None:
        """It is back, and consumers are recreated."""
        self.connected = True
        if self.following is not None:
            self.following.paused = False
            self.following.again()

    def check_connection(self) -> None:
        """Raise ``unavailable`` while there is no connection."""
        if not self.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")


class FakeSubscription:
    """Implements ``kcm_runtime.nats.ports.Subscription``.

    ``paused`` keeps deliveries back; ``gate`` keeps a consumer from being recreated. Like the real
    one, it goes on with the old consumer until it notices that it has to make a new one.
    """

    def __init__(self, log: FakeLog, follower: LogFollower) -> None:
        self._log = log
        self._follower = follower
        self._position = 0
        self._sent = 0
        self._incarnation: int | None = None
        self._live = False
        self._started = False
        self._closed = False
        self._remaking: asyncio.Task[None] | None = None
        self._scheduled = False
        self._moved = asyncio.Event()
        self.paused = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.remade = 0
        self.failures: list[Exception] = []

    @property
    def position(self) -> int:
        return self._position

    async def start(self) -> None:
        assert not self._started, "a follower starts once"
        self._started = True
        self._log.check_connection()
        self._log.stream.followers.append(self)
        await asyncio.sleep(0)
        self._begin()
        while self._log.stream.behind(self._sent):
            self._moved.clear()
            await self._moved.wait()

    async def close(self) -> None:
        self._closed = True
        self._live = False
        if self in self._log.stream.followers:
            self._log.stream.followers.remove(self)
        if self._remaking is not None:
            self._remaking.cancel()

    def again(self) -> None:
        if self._started and not self._closed and self._remaking is None:
            self._remaking = asyncio.get_running_loop().create_task(self._remake())

    async def reached(self, sequence: int, timeout_s: float = 5.0) -> None:
        end = asyncio.get_running_loop().time() + timeout_s
        while self._position < sequence:
            self._moved.clear()
            try:
                left = end - asyncio.get_running_loop().time()
                await asyncio.wait_for(self._moved.wait(), left)
            except TimeoutError:
                raise KcmError(Code.UNAVAILABLE, "the stream was not delivered in time") from None

    async def _remake(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the old consumer still delivers while it is noticed
        self._live = False
        while not self._log.connected:  # noqa: ASYNC110 - a broker's return has no event
            await asyncio.sleep(0.1)
        await self.gate.wait()
        self._remaking = None
        self._begin()

    def _begin(self) -> None:
        stream = self._log.stream
        behind = self._follower.anchor()
        if self._incarnation not in (None, stream.incarnation) or stream.sequence < behind:
            self._follower.went_back()
            behind = 0
        self._incarnation = stream.incarnation
        self._position = self._sent = behind
        self._follower.resumed(behind)
        self._live = True
        self.remade += 1
        self.kick()

    def kick(self) -> None:
        """Deliver soon whatever was stored."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self.paused or not self._live or not self._log.connected:
            return
        waiting = self._log.stream.behind(self._sent)
        if not waiting:
            return
        self.deliver(waiting[0])
        if len(waiting) > 1:
            self.kick()

    def deliver(self, entry: Entry) -> None:
        """Hand over one entry, now."""
        self._sent = entry.sequence
        try:
            self._follower.receive(entry)
        except Exception as error:  # noqa: BLE001 - as the real one does
            self.failures.append(error)
        self._position = entry.sequence
        self._moved.set()

    def resume(self) -> None:
        """Let what was kept back be delivered."""
        self.paused = False
        self.kick()
