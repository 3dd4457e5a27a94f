"""What a run is: topology, timing, policies, weather, faults and work.

A plan is data: a plan with its seed is the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kcm_killswitch.model.timing import Timing

from tests.simulation.history import Bounds, TenantFacts
from tests.simulation.network import Weather
from tests.simulation.stream import Store

REGIONS: Final = ("eu", "us", "ap", "sa")


OPERATORS: Final = ("ada", "bob")


LINKS: Final[dict[str, tuple[str, Literal["byok", "hyok"]]]] = {
    "link-a": ("softkey:/a", "byok"),
    "link-b": ("softkey:/b", "hyok"),
    "link-c": ("softkey:/c", "byok"),
    "link-d": ("softkey:/d", "hyok"),
}
"""Where each link's key is, and its model."""


APPS: Final = ("app-a", "app-b")
"""Applications: each may do everything for every tenant until somebody changes that."""


OTHER: Final = {"link-a": "link-c", "link-b": "link-d", "link-c": "link-a", "link-d": "link-b"}
"""To which link a tenant moves from each: to one of the same model."""


@dataclass(frozen=True, slots=True)
class Member:
    """An instance: ``side`` is the part of its region's brokers that it is connected to."""

    name: str
    role: Literal["core", "gateway"]
    region: str
    side: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: when, for how long, what, and to whom (an index or a name)."""

    at: float
    lasts: float
    kind: str
    pick: float
    """Chooses whom it befalls, between 0 and 1."""
    region: str = ""
    """Where it happens; drawn by ``pick`` when it is empty."""


Scope = Literal["tenant", "link", "app", "instance"]
"""What operators kill. A region's retirement is not simulated."""


@dataclass(frozen=True, slots=True)
class Kill:
    """An operator's kill, and its lift ``lift_after`` seconds later (None: after healing)."""

    at: float
    operator: str
    scope: Scope
    pick: float
    region_pick: float
    lift_after: float | None


@dataclass(frozen=True, slots=True)
class Relink:
    """An operator moves a tenant to its other link, in all of its regions."""

    at: float
    operator: str
    pick: float


@dataclass(frozen=True, slots=True)
class Regrant:
    """An operator changes an application's entry, in every region."""

    at: float
    operator: str
    pick: float
    what: Literal["narrow", "rotate"]
    """Whether a grant for one tenant and verb ends, or there is a new key."""


@dataclass(slots=True)
class Plan:
    """One run."""

    seed: int
    variant: str
    regions: list[str]
    members: list[Member]
    tenants: list[TenantFacts]
    timing: Timing
    weather: Weather
    store: Store
    rates: dict[str, float]
    wall_s: dict[str, float]
    lasts: float
    faults: list[Fault]
    kills: list[Kill]
    every_s: float
    """Between two requests of a client."""
    worker: float
    """Probability that a worker holds a key across a wait."""
    excuse_in_flight: bool = False
    focus: str = ""
    """What it aims at; empty: nothing in particular."""
    page_s: float = 0.0
    """Seconds after a lift at which the hold is put into a page; 0: never."""
    asks_s: float = 0.0
    """Seconds between two moments at which Cores are asked of finished kills; 0: nobody asks."""
    asks: bool = False
    """Whether applications ask Cores for keys, and Gateways have sessions with Cores."""
    thief: str = ""
    """A Gateway in whose memory a thief is; empty: none is."""
    registry: bool = False
    """Whether the registry can change: else every instance has it from its start."""
    relinks: list[Relink] = field(default_factory=list)
    regrants: list[Regrant] = field(default_factory=list)
    bounds: Bounds = field(init=False)

    def __post_init__(self) -> None:
        self.bind()

    @property
    def links(self) -> list[str]:
        """All links there are."""
        here = {tenant.link for tenant in self.tenants}
        return sorted(LINKS if self.registry else here)

    def change_registry(self) -> None:
        """Let the registry change. Nobody accepts a majority of fewer than three regions."""
        self.registry = True
        self.tenants = [
            replace(one, policy="all") if one.policy == "majority" and len(one.regions) < 3 else one
            for one in self.tenants
        ]

    def bind(self) -> None:
        """The bounds are those of the durations as they are now."""
        timing = self.timing
        self.bounds = Bounds(
            timing.control_lease_s,
            timing.partition_grace_s,
            timing.hyok_grace_s,
            timing.l1_lease_s,
            timing.l1_lease_of("hyok"),
            timing.clock_error,
            timing.settle_s,
            excuse_in_flight=self.excuse_in_flight,
        )


def target(tenants: list[TenantFacts], kill: Kill) -> TenantFacts:
    """The tenant that a kill is about, or one of those on the link that it is about."""
    return tenants[int(kill.pick * len(tenants))]


def instance(members: list[Member], region: str, pick: float) -> str:
    """The instance of a region that somebody is about."""
    here = sorted(one.name for one in members if one.region == region)
    return here[int(pick * 7919) % len(here)]


def application(pick: float) -> str:
    """The application that somebody is about."""
    return APPS[int(pick * 7919) % len(APPS)]
