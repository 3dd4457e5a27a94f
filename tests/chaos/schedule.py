"""Which fault happens when: a plan that follows from its seed alone.

Three tracks run beside one another: kills by operators, states of keys, and faults of processes,
disks and links. On the last track as many faults overlap as ``AT_ONCE``, but no two have the same
thing in their hands, and no two disks are harmed at once: what two of three nodes lose is lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.chaos.disks import ALL_STREAMS, STREAMS, WHOLE, Act, Harm, Part
from tests.chaos.proxy import CUTS

AT_ONCE = 3
"""Faults of processes and links at the same time."""

REST_S = 15
"""Seconds for which a target is left alone afterwards, so that it is served when it is its turn."""

REFUSED = ("disabled", "forbidden", "pending_deletion")

WEIGHTS = {
    "kill-core": 4,
    "kill-gateway": 3,
    "kill-broker": 3,
    "pause-core": 4,
    "pause-gateway": 4,
    "pause-broker": 2,
    "kill-backbone": 1,
    "cut-backbone": 3,
    "cut-region": 6,
    "cut-node": 3,
    "isolate-node": 3,
    "roll-back": 3,
    "damage-block": 4,
    "damage-state": 2,
    "damage-meta": 2,
    "damage-raft": 2,
    "damage-snapshot": 2,
    "forget-stream": 2,
    "remove-node": 1,
    "restart-everything": 1,
}
"""How often each fault is drawn, relative to the others."""

LASTS = {
    "kill-core": (1, 15),
    "kill-gateway": (1, 10),
    "kill-broker": (1, 12),
    "pause-core": (1, 15),
    "pause-gateway": (1, 15),
    "pause-broker": (1, 12),
    "kill-backbone": (2, 15),
    "cut-backbone": (3, 15),
    "cut-region": (3, 15),
    "cut-node": (4, 15),
    "isolate-node": (4, 15),
    "roll-back": (4, 15),
    "damage-block": (4, 12),
    "damage-state": (3, 8),
    "damage-meta": (4, 12),
    "damage-raft": (4, 12),
    "damage-snapshot": (4, 12),
    "forget-stream": (4, 12),
    "remove-node": (6, 15),
    "restart-everything": (1, 3),
}
"""Seconds that each fault lasts, between; rather short than long, or nobody would be served."""


HARMS: dict[str, tuple[Part, tuple[Act, ...]]] = {
    "damage-block": ("block", ("flip", "truncate", "roll-back")),
    "damage-state": ("state", ("flip", "truncate", "roll-back")),
    "damage-meta": ("meta", ("flip", "truncate")),
    "damage-raft": ("raft", ("flip", "truncate", "roll-back")),
    "damage-snapshot": ("snapshot", ("flip", "truncate", "roll-back")),
    "forget-stream": ("stream", ("forget",)),
}
"""What each fault of a disk does to which of a server's files."""

AUDITED = frozenset({"damage-block", "forget-stream"})
"""Faults of a disk that befall the audit stream, too."""

ONCE = frozenset({"remove-node"})
"""Faults that a plan has once: for five minutes the servers do not let a removed node in again."""

ALONE = " alone"
"""After the region of a kill: its operator reaches no other one."""

LONG = {
    "cut-backbone": (20, 32),
    "cut-region": (20, 32),
    "cut-node": (20, 32),
    "isolate-node": (20, 32),
    "pause-core": (20, 25),
    "pause-gateway": (20, 25),
}
"""Seconds that every second one of these lasts instead: longer than any bound, so that it shows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to break."""

    cores: tuple[str, ...]
    gateways: tuple[str, ...]
    servers: tuple[str, ...]
    """Every server of every region's broker."""
    nodes: tuple[str, ...]
    """Those of them that are nodes of a cluster."""
    regions: tuple[str, ...]
    tenants: tuple[str, ...]
    links: tuple[str, ...]

    def targets(self, kind: str) -> tuple[str, ...]:
        """What a fault of this kind can be done to."""
        return {
            "kill-core": self.cores,
            "pause-core": self.cores,
            "kill-gateway": self.gateways,
            "pause-gateway": self.gateways,
            "kill-broker": self.servers,
            "pause-broker": self.servers,
            "roll-back": self.servers,
            "damage-block": self.servers,
            "damage-state": self.servers,
            "damage-meta": self.servers,
            "damage-raft": self.nodes,
            "damage-snapshot": self.nodes,
            "forget-stream": self.servers,
            "remove-node": self.nodes,
            "kill-backbone": ("backbone",),
            "cut-backbone": ("backbone",),
            "cut-region": self.regions,
            "cut-node": self.nodes,
            "isolate-node": self.nodes,
            "restart-everything": ("everything",),
        }[kind]


_HANDS: dict[str, set[str]] = {
    "cut-backbone": {"links"},
    "cut-region": {"links"},
    "cut-node": {"routes"},
    "isolate-node": {"routes", "links"},
    "restart-everything": {"*"},
}
"""What faults have in their hands that are not about their target alone."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``at`` and ``seconds`` count from the beginning; ``how`` is a mode or a state."""

    at: float
    kind: str
    target: str
    seconds: float
    how: str = ""
    harm: Harm | None = None
    """What happens to the target's disk."""

    @property
    def ends(self) -> float:
        return self.at + self.seconds

    def hands(self) -> set[str]:
        """What it has in its hands; ``*`` is everything."""
        disk = {"disks"} if self.harm or self.kind == "remove-node" else set[str]()
        removed = {"routes", "links"} if self.kind == "remove-node" else set[str]()
        return disk | removed | _HANDS.get(self.kind, {self.target}) | self._link()

    def _link(self) -> set[str]:
        return {f"link {self.target}"} if self.kind == "cut-region" else set()

    def collides(self, other: Fault) -> bool:
        """Whether both would have the same thing in their hands at some time."""
        if self.at >= other.ends or other.at >= self.ends:
            return False
        mine, others = self.hands(), other.hands()
        if self.kind == other.kind == "cut-region":
            mine, others = mine - {"links"}, others - {"links"}
        return "*" in mine | others or bool(mine & others)


@dataclass(slots=True)
class Plan:
    seed: int
    seconds: float
    faults: list[Fault] = field(default_factory=list)
    """In the order in which they begin; all have ended after ``seconds``."""


def plan(seed: int, seconds: float, layout: Layout) -> Plan:
    """Draw a plan. The same arguments give the same plan."""
    chance = random.Random(seed)
    broken = list(_breakage(chance, seconds, layout))
    faults = [
        *_kills(chance, seconds, layout),
        *_keys(chance, seconds, layout),
        *broken,
        *_kills_behind_backs(chance, broken, layout),
    ]
    return Plan(seed, seconds, sorted(faults, key=lambda fault: fault.at))


def _kills(chance: random.Random, seconds: float, layout: Layout) -> Iterator[Fault]:
    """Mostly on somebody who is served: a second hold on the same target is the exception."""
    free: dict[str, float] = {}
    at = chance.uniform(1, 4)
    while at < seconds - 4:
        link = chance.random() < 0.25
        target = chance.choice(layout.links if link else layout.tenants)
        lasts = min(chance.uniform(6, 24), seconds - at - 0.5)
        kind = "kill-link" if link else "kill-tenant"
        if at > free.get(target, 0.0) or chance.random() < 0.2:
            yield Fault(at, kind, target, lasts, chance.choice(layout.regions))
            free[target] = at + lasts + REST_S
        at += chance.uniform(8, 22)


def _kills_behind_backs(
    chance: random.Random, broken: list[Fault], layout: Layout
) -> Iterator[Fault]:
    """Kill while somebody cannot hear of it: those are told by nothing but the end of a lease.

    By one region alone, for an operator who reaches the others tells them.
    """
    for fault in broken:
        if fault.kind in LONG and fault.seconds >= LONG[fault.kind][0]:
            wait = chance.uniform(0.3, 1.5)
            regions = [region for region in layout.regions if region != fault.target]
            yield Fault(
                fault.at + wait,
                "kill-tenant",
                chance.choice(layout.tenants),
                fault.seconds - wait,
                chance.choice(regions or layout.regions) + ALONE,
            )


def _keys(chance: random.Random, seconds: float, layout: Layout) -> Iterator[Fault]:
    free = dict.fromkeys(layout.links, 0.0)
    at = chance.uniform(1, 6)
    while at < seconds - 4:
        link = chance.choice(layout.links)
        if free[link] <= at:
            silent = chance.random() < 0.4
            how = "unreachable" if silent else chance.choice(REFUSED)
            lasts = min(chance.uniform(3, 30), seconds - at - 0.5)
            yield Fault(at, "key", link, lasts, how)
            free[link] = at + lasts + REST_S
        at += chance.uniform(14, 35)


def _breakage(chance: random.Random, seconds: float, layout: Layout) -> Iterator[Fault]:
    drawn: list[Fault] = []
    at = 1.0
    while at < seconds - 3:
        fault = _draw(chance, at, seconds, layout)
        now = [other for other in drawn if other.ends > at]
        again = fault.kind in ONCE and any(other.kind == fault.kind for other in drawn)
        if len(now) < AT_ONCE and not again and not any(fault.collides(other) for other in now):
            drawn.append(fault)
            yield fault
        at += chance.uniform(1, 8)


def _draw(chance: random.Random, at: float, seconds: float, layout: Layout) -> Fault:
    kinds = [kind for kind in WEIGHTS if layout.targets(kind)]
    kind = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    target = chance.choice(layout.targets(kind))
    if kind in LONG and chance.random() < 0.5:
        lasts = chance.uniform(*LONG[kind])
    else:
        shortest, longest = LASTS[kind]
        lasts = chance.triangular(shortest, longest, shortest)
    lasts = min(lasts, seconds - at - 0.5)
    fault = Fault(at, kind, target, lasts)
    if kind.startswith(("cut", "isolate", "remove")):
        return replace(fault, how=chance.choice(CUTS).value)
    if kind in HARMS:
        harm = _harm(chance, kind)
        return replace(fault, how=str(harm), harm=harm)
    return fault


def _harm(chance: random.Random, kind: str) -> Harm:
    part, acts = HARMS[kind]
    return Harm(
        part,
        chance.choice(acts),
        chance.randrange(WHOLE),
        chance.choice(ALL_STREAMS if kind in AUDITED else STREAMS),
        orderly=part != "stream" and chance.random() < 0.5,
    )
