"""A client's connection to one account of the simulated broker: the port ``Messages``."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from kcm_runtime.nats.ports import NobodyListens, OnDelivery
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from tests.simulation.nodes import Node

if TYPE_CHECKING:
    from tests.simulation.network import Leg, Network

Account = Literal["region", "control"]

FLUSH_S: Final = 2.0
"""Seconds that a client waits for the broker's word that it has everything."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A message under way: ``kcm_runtime.nats.ports.Arrived``."""

    subject: str
    data: bytes
    reply: str = ""


class Subscription:
    """Messages of one pattern, given to the callback one after another."""

    def __init__(
        self, owner: SimConnection, pattern: str, callback: OnDelivery, queue: str
    ) -> None:
        self.owner: Final = owner
        self.queue: Final = queue
        self.pattern: Final = pattern
        self._tokens: Final = pattern.split(".")
        self._prefix: Final = pattern[:-1] if pattern.endswith(".>") and "*" not in pattern else ""
        self._callback: Final = callback
        self._waiting: deque[Packet] = deque()
        self._busy = False

    def hears(self, sender: SimConnection, subject: str) -> bool:
        """Whether the account is the same, and the pattern covers the subject."""
        owner = self.owner
        if owner.account != sender.account:
            return False
        if owner.account == "region" and owner.region != sender.region:
            return False
        return subject.startswith(self._prefix) if self._prefix else self._covers(subject)

    def _covers(self, subject: str) -> bool:
        tokens = subject.split(".")
        for at, wanted in enumerate(self._tokens):
            if wanted == ">":
                return len(tokens) > at
            if at >= len(tokens) or wanted not in ("*", tokens[at]):
                return False
        return len(tokens) == len(self._tokens)

    def arrive(self, packet: Packet) -> None:
        """The packet came off the wire."""
        owner = self.owner
        if not owner.connected or owner.node.dead:
            return
        if len(self._waiting) >= owner.network.weather.pending_max:
            owner.network.counts["callback dropped"] += 1
            return
        owner.network.on_arrival(packet)
        self._waiting.append(packet)
        if not self._busy:
            self._busy = True
            owner.network.loop.spawn(owner.node, self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._callback(self._waiting.popleft())
        finally:
            self._busy = False


class SimConnection:
    """``Messages`` of one node and account. ``connected`` is what the client library believes."""

    def __init__(
        self,
        network: Network,
        node: Node,
        region: str,
        account: Account,
        side: int,
        leg: Leg,
        inbox: str,
    ) -> None:
        self.network: Final = network
        self.node: Final = node
        self.region: Final = region
        self.account: Final = account
        self.side: Final = side
        self.leg: Final = leg
        self.inbox: Final = inbox
        self.connected = True
        self.times_connected = 1
        self._asked = 0
        self._open: dict[str, asyncio.Future[bytes]] = {}

    async def subscribe(self, subject: str, callback: OnDelivery, queue: str = "") -> None:
        """As the port says."""
        self._check()
        self.network.subscriptions.append(Subscription(self, subject, callback, queue))

    async def unsubscribe(self, subject: str) -> None:
        """As the port says."""
        self.network.subscriptions[:] = [
            one
            for one in self.network.subscriptions
            if one.owner is not self or one.pattern != subject
        ]

    async def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """As the port says."""
        self._check(body)
        self.network.send(self, Packet(subject, body, reply))

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """As the port says."""
        self._check(body)
        self._asked += 1
        inbox = f"_INBOX.{self.inbox}.{self._asked}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[inbox] = answer
        try:
            if not self.network.send(self, Packet(subject, body, inbox)):
                await asyncio.sleep(self.network.delay())
                raise NobodyListens
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise KcmError(Code.DEADLINE_EXCEEDED, "no answer in time") from None
        finally:
            del self._open[inbox]

    async def move(self) -> None:
        """Each side has one node: there is no other one."""

    async def flush(self) -> None:
        """As the port says: a broker that does not answer is noticed here."""
        self._check()
        if self.leg.state != "open":
            await asyncio.sleep(FLUSH_S)
            raise KcmError(Code.DEADLINE_EXCEEDED, "no answer in time")
        await asyncio.sleep(self.network.delay())

    def answered(self, packet: Packet) -> None:
        """An answer came; nobody may wait for it any more."""
        waiting = self._open.get(packet.subject)
        if self.connected and waiting is not None and not waiting.done():
            waiting.set_result(packet.data)

    def disconnect(self) -> None:
        """The client notices that the broker is gone."""
        self.connected = False
        self.leg.state = "cut"
        self.leg.held.clear()

    def reconnect(self) -> None:
        """The client is back, with its subscriptions."""
        self.connected = True
        self.times_connected += 1
        self.leg.state = "open"

    def _check(self, body: bytes = b"") -> None:
        if len(body) > limits.BODY_MAX + 1024:
            raise KcmError(Code.TOO_LARGE)
        if not self.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
