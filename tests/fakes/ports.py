"""The ports of ``kcm_runtime.nats.ports`` in memory: as strict as a broker, with its faults.

``Stream`` is a region's control stream; ``FakeLog`` is one incarnation's way to it. It stores by
compare-and-set, keeps the last message of every subject, drops without a word what expired, and can
lose acknowledgements, go back and be made anew. ``Wire`` is what an account's messages travel on;
``FakeMessages`` is one incarnation's connection to it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kcm_runtime.nats.ports import Entry, Leading, LogFollower, NobodyListens, OnDelivery
from kcm_schemas import limits
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
    followers: list[FakeFollowing] = field(default_factory=list)
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
        """The subject's message is too old: it goes without a word."""
        del self.entries[subject]

    def snapshot(self) -> tuple[dict[str, Entry], int]:
        return dict(self.entries), self.sequence

    def go_back(self, to: tuple[dict[str, Entry], int], *, restart: bool = True) -> None:
        """The disk has what it had before. That takes a restart, which ends consumers."""
        self.entries, self.sequence = dict(to[0]), to[1]
        if restart:
            self.restart()

    def recreate(self) -> None:
        """Somebody deleted the stream and made it anew."""
        self.entries, self.sequence = {}, 0
        self.incarnation += 1
        self.restart()

    def restart(self) -> None:
        for follower in list(self.followers):
            follower.again()


class FakeLog:
    """Implements ``kcm_runtime.nats.ports.Log`` over a ``Stream``."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.before: Hook = nothing
        self.connected = True
        self.moves = 0
        self.acks_to_lose = 0
        self.puts: list[str] = []
        self.following: FakeFollowing | None = None

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
            raise KcmError(Code.UNAVAILABLE, "nobody acknowledged")
        return sequence

    async def move(self) -> None:
        self.moves += 1

    async def last(self, subject: str) -> Entry | None:
        self.check_connection()
        await self.before("last", subject)
        await asyncio.sleep(0)
        self.check_connection()
        return self.stream.entries.get(subject)

    async def leading(self) -> Leading:
        self.check_connection()
        await self.before("leading", "")
        await asyncio.sleep(0)
        self.check_connection()
        return Leading(self.stream.leader, len(self.stream.entries))

    def follow(self, follower: LogFollower) -> FakeFollowing:
        """The first one is the incarnation's own; another one reads the stream once more."""
        made = FakeFollowing(self, follower)
        self.following = self.following or made
        return made

    def disconnect(self) -> None:
        """The connection is gone: nothing is sent, nothing arrives."""
        self.connected = False
        if self.following is not None:
            self.following.paused = True

    def reconnect(self) -> None:
        """It is back, and consumers are made anew."""
        self.connected = True
        if self.following is not None:
            self.following.paused = False
            self.following.again()

    def check_connection(self) -> None:
        """Raise ``unavailable`` while there is no connection."""
        if not self.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")


class FakeFollowing:
    """Implements ``kcm_runtime.nats.ports.Following``.

    ``paused`` keeps deliveries back; ``gate`` keeps a consumer from being made anew. As the real
    one does, it goes on with the old consumer until it notices that it has to make a new one.
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
        while not self._log.connected:  # noqa: ASYNC110 - nobody tells that a broker is back
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


@dataclass(frozen=True)
class Message:
    """Implements ``kcm_runtime.nats.ports.Arrived``."""

    subject: str
    data: bytes
    reply: str = ""


@dataclass
class _Subscription:
    owner: FakeMessages
    subject: str
    callback: OnDelivery
    queue: str
    waiting: deque[Message] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None

    def offer(self, message: Message) -> None:
        self.waiting.append(message)
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self.waiting:
            message = self.waiting.popleft()
            try:
                await self.callback(message)
            except Exception as error:  # noqa: BLE001 - as the real one does
                self.owner.failures.append(error)


class Wire:
    """An account that spans regions: at most once, nothing is kept.

    ``loses(sender, receiver, subject)`` says which messages never arrive.
    """

    def __init__(self) -> None:
        self.members: list[FakeMessages] = []
        self.sent: list[Message] = []
        self.loses: Callable[[str, str, str], bool] = lambda _sender, _receiver, _subject: False
        self._turn = itertools.count()
        self._inboxes = itertools.count(1)

    def join(self, name: str) -> FakeMessages:
        member = FakeMessages(self, name)
        self.members.append(member)
        return member

    def new_inbox(self) -> str:
        """A subject for one reply."""
        return f"_INBOX.{next(self._inboxes)}"

    def carry(self, sender: str, message: Message) -> int:
        """Bring a message to everybody who wants it; returns how many they are."""
        self.sent.append(message)
        takers: list[_Subscription] = []
        queues: dict[str, list[_Subscription]] = {}
        for member in self.members:
            for one in member.subscriptions:
                if not (member.connected and _matches(one.subject, message.subject)):
                    continue
                if self.loses(sender, member.name, message.subject):
                    continue
                if one.queue:
                    queues.setdefault(one.queue, []).append(one)
                else:
                    takers.append(one)
        takers += [group[next(self._turn) % len(group)] for group in queues.values()]
        for one in takers:
            one.offer(message)
        return len(takers)


class FakeMessages:
    """Implements ``kcm_runtime.nats.ports.Messages``."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self.connected = True
        self.times_connected = 1
        self.moves = 0
        self.subscriptions: list[_Subscription] = []
        self.failures: list[Exception] = []

    async def subscribe(self, subject: str, callback: OnDelivery, queue: str = "") -> None:
        self.subscriptions.append(_Subscription(self, subject, callback, queue))

    async def unsubscribe(self, subject: str) -> None:
        self.subscriptions = [one for one in self.subscriptions if one.subject != subject]

    async def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        self._check(body)
        await asyncio.sleep(0)
        self._check(body)
        self.wire.carry(self.name, Message(subject, body, reply))

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        self._check(body)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inbox = self.wire.new_inbox()

        async def on_answer(message: Message) -> None:
            if not answer.done():
                answer.set_result(message.data)

        one = _Subscription(self, inbox, on_answer, "")  # type: ignore[arg-type]
        self.subscriptions.append(one)
        try:
            await asyncio.sleep(0)
            self._check(body)
            if not self.wire.carry(self.name, Message(subject, body, inbox)):
                raise NobodyListens
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise KcmError(Code.DEADLINE_EXCEEDED) from None
        finally:
            self.subscriptions.remove(one)

    async def move(self) -> None:
        self.moves += 1

    async def flush(self) -> None:
        self._check(b"")
        await asyncio.sleep(0)

    def _check(self, body: bytes) -> None:
        if not self.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
        if len(body) > limits.BODY_MAX:
            raise KcmError(Code.TOO_LARGE)


def _matches(pattern: str, subject: str) -> bool:
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        return len(tokens) > len(wanted) and _same(wanted, tokens[: len(wanted)])
    return len(tokens) == len(wanted) and _same(wanted, tokens)


def _same(wanted: list[str], tokens: list[str]) -> bool:
    return all(one in ("*", other) for one, other in zip(wanted, tokens, strict=True))
