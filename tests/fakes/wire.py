"""Messages without storage, in memory: what the accounts of several regions share.

``Wire`` carries the messages; ``FakePubSub`` is one incarnation's connection to it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kcm_runtime.nats.ports import NobodyListens, OnDelivery
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError


@dataclass(frozen=True)
class Message:
    """Implements ``kcm_runtime.nats.ports.Delivery``."""

    subject: str
    data: bytes
    reply: str = ""


@dataclass
class _Subscriber:
    owner: FakePubSub
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
        self.members: list[FakePubSub] = []
        self.sent: list[Message] = []
        self.loses: Callable[[str, str, str], bool] = lambda _sender, _receiver, _subject: False
        self._turn = itertools.count()
        self._inboxes = itertools.count(1)

    def join(self, name: str) -> FakePubSub:
        member = FakePubSub(self, name)
        self.members.append(member)
        return member

    def new_inbox(self) -> str:
        """A subject for one reply."""
        return f"_INBOX.{next(self._inboxes)}"

    def carry(self, sender: str, message: Message) -> int:
        """Deliver a message to its subscribers; returns how many there are."""
        self.sent.append(message)
        takers: list[_Subscriber] = []
        queues: dict[str, list[_Subscriber]] = {}
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


class FakePubSub:
    """Implements ``kcm_runtime.nats.ports.PubSub``."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self.connected = True
        self.times_connected = 1
        self.moves = 0
        self.subscriptions: list[_Subscriber] = []
        self.failures: list[Exception] = []

    async def subscribe(self, subject: str, callback: OnDelivery, queue: str = "") -> None:
        self.subscriptions.append(_Subscriber(self, subject, callback, queue))

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

        one = _Subscriber(self, inbox, on_answer, "")  # type: ignore[arg-type]
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
