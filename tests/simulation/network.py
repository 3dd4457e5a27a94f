"""A network of brokers as it behaves, and as it misbehaves.

A region's account stays in the region. The control account is joined by leaf links through a
backbone that keeps nothing. A message's way is a chain of **legs**: the sender's socket, the leaf
links of both regions, the receiver's socket. A leg is ``open``, ``cut`` (what comes is lost),
``stalled`` (nobody notices; what comes waits, and is flushed or lost when the leg is mended), or it
loses a part of what comes without a word.

Delays have an unbounded tail. What one connection sends to one subscription arrives in order,
unless the weather reorders; a late message keeps nobody behind it waiting then, which is what a
pause between a sender's check and its send looks like to everybody else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from tests.simulation.loop import SimLoop
from tests.simulation.messages import Account, Packet, SimConnection, Subscription
from tests.simulation.nodes import Node


@dataclass(slots=True)
class Weather:
    """How messages travel. Seconds and probabilities for each message."""

    delay_s: float = 0.001
    """Median of one message."""
    late: float = 0.0
    late_s: float = 5.0
    """Probability of a long delay, and its mean: the tail is exponential, without a bound."""
    loss: float = 0.0
    twice: float = 0.0
    reorder: bool = False
    pending_max: int = 4096
    """Messages of a subscription that wait for its callback; more are dropped."""


@dataclass(slots=True)
class Leg:
    """A stretch of the way."""

    state: Literal["open", "cut", "stalled"] = "open"
    loss: float = 0.0
    held: list[Callable[[], None]] = field(default_factory=list)

    def mend(self, *, flush: bool) -> None:
        """Open it again; what was held comes now, or never."""
        self.state = "open"
        held, self.held = self.held, []
        for go_on in held if flush else ():
            go_on()


class Network:
    """All brokers, and everybody's connections to them."""

    def __init__(self, loop: SimLoop, regions: list[str], weather: Weather | None = None) -> None:
        self.loop: Final = loop
        self.random: Final = random.Random(loop.random.random())
        self.weather: Final = weather or Weather()
        self.leaves: Final = {region: Leg() for region in regions}
        self.cut_sides: Final[set[str]] = set()
        """Regions whose brokers are split: side 0 and side 1 hear nothing of one another."""
        self.counts: Final[Counter[str]] = Counter()
        self.on_send: Callable[[SimConnection, Packet], bool] = lambda _, __: True
        """Sees every message; ``False`` keeps it back."""
        self.on_arrival: Callable[[Packet], None] = lambda _: None
        """Sees every message that a subscription gets."""
        self.subscriptions: Final[list[Subscription]] = []
        self._inboxes: dict[str, SimConnection] = {}
        self._numbers = 0
        self._last: dict[tuple[SimConnection, object], float] = {}

    def connect(
        self, node: Node, region: str, account: Account, *, side: int = 0, leg: Leg | None = None
    ) -> SimConnection:
        """A connection of a node; ``leg`` is shared by the connections of one instance."""
        self._numbers += 1
        made = SimConnection(self, node, region, account, side, leg or Leg(), str(self._numbers))
        self._inboxes[made.inbox] = made
        return made

    def drop(self, node: Node) -> None:
        """The node is gone; so are its connections."""
        self.subscriptions[:] = [sub for sub in self.subscriptions if sub.owner.node is not node]
        self._inboxes = {key: one for key, one in self._inboxes.items() if one.node is not node}
        self._last = {key: at for key, at in self._last.items() if key[0].node is not node}

    def send(self, sender: SimConnection, packet: Packet) -> int:
        """Send a message; returns how many are interested in it, as the broker believes."""
        if not self.on_send(sender, packet):
            return 1
        return self.send_now(sender, packet)

    def send_now(self, sender: SimConnection, packet: Packet) -> int:
        """Route a message, whoever would keep it back."""
        if packet.subject.startswith("_INBOX."):
            receiver = self._inboxes.get(packet.subject.split(".")[1])
            if receiver is not None:
                self._travel(sender, receiver, packet, receiver.answered)
            return 1
        groups: dict[str, list[Subscription]] = {}
        interested = 0
        for sub in self.subscriptions:
            if not sub.hears(sender, packet.subject):
                continue
            interested += 1
            if sub.queue:
                groups.setdefault(sub.queue, []).append(sub)
            else:
                self._travel(sender, sub.owner, packet, sub.arrive)
        for members in groups.values():
            reached = [sub for sub in members if self.joined(sender, sub.owner)] or members
            sub = reached[int(self.random.random() * len(reached))]
            self._travel(sender, sub.owner, packet, sub.arrive)
        return interested

    def joined(self, one: SimConnection, other: SimConnection) -> bool:
        """Whether the brokers of two connections hear one another, links aside."""
        same = one.region == other.region
        return not (same and one.side != other.side and one.region in self.cut_sides)

    def _travel(
        self,
        sender: SimConnection,
        receiver: SimConnection,
        packet: Packet,
        arrive: Callable[[Packet], None],
    ) -> None:
        if not self.joined(sender, receiver):
            self.counts["split"] += 1
            return
        legs = [sender.leg]
        if sender.region != receiver.region:
            legs += [self.leaves[sender.region], self.leaves[receiver.region]]
        legs.append(receiver.leg)
        self._pass(legs, 0, (sender, arrive), packet)

    def _pass(
        self,
        legs: list[Leg],
        at: int,
        way: tuple[SimConnection, Callable[[Packet], None]],
        packet: Packet,
    ) -> None:
        while at < len(legs):
            leg = legs[at]
            if leg.state == "cut" or (leg.loss and self.random.random() < leg.loss):
                self.counts["lost on a leg"] += 1
                return
            if leg.state == "stalled":
                self.counts["held"] += 1
                leg.held.append(partial(self._pass, legs, at + 1, way, packet))
                return
            at += 1
        weather, draw = self.weather, self.random.random
        if weather.loss and draw() < weather.loss:
            self.counts["lost"] += 1
            return
        self._schedule(legs[-1], way, packet)
        if weather.twice and draw() < weather.twice:
            self.counts["twice"] += 1
            self._schedule(legs[-1], way, packet)

    def _schedule(
        self, leg: Leg, way: tuple[SimConnection, Callable[[Packet], None]], packet: Packet
    ) -> None:
        when = self.loop.now + self.delay()
        if not self.weather.reorder:
            when = max(when, self._last.get(way, 0.0))
            self._last[way] = when
        self.loop.at(when, self._deliver, leg, way[1], packet)

    def _deliver(self, leg: Leg, arrive: Callable[[Packet], None], packet: Packet) -> None:
        if leg.state == "open":
            arrive(packet)
        elif leg.state == "stalled":
            self.counts["held"] += 1
            leg.held.append(partial(arrive, packet))
        else:
            self.counts["lost on a leg"] += 1

    def delay(self) -> float:
        """Seconds that one message takes."""
        weather, draw = self.weather, self.random.random
        if weather.late and draw() < weather.late:
            self.counts["late"] += 1
            return self.random.expovariate(1 / weather.late_s)
        return weather.delay_s * (0.3 + 1.4 * draw())
