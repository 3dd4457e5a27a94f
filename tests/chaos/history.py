"""What happened in a run, as its judge gets to know it. Instants are of ``CLOCK_BOOTTIME``."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from kcm_killswitch.model.flap_damping import damped
from kcm_killswitch.model.timing import Model, Timing
from kcm_schemas.control import Scope
from kcm_schemas.registry import RegionQuorum


@dataclass(frozen=True, slots=True)
class TenantSpec:
    name: str
    link: str
    policy: RegionQuorum
    model: Model
    regions: tuple[str, ...]
    spared: bool = False
    """Nobody kills it and its key never fails: the other tenant, who must not notice."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answer that a client accepted, with plaintexts or records in it."""

    tenant: str
    region: str
    operation: str
    sent: float
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    tenant: str
    region: str
    operation: str
    code: str
    at: float


@dataclass(slots=True)
class Kill:
    """A hold, of an operator or of a key, as far as the harness saw it."""

    hold_id: str
    scope: Scope
    target: str
    cause: str
    issued_ms: int = 0
    requested: float = 0.0
    region: str = ""
    durable: dict[str, float] = field(default_factory=dict)
    """By region, the earliest instant at which it was known to be in the region's stream."""
    complete: float | None = None
    """When somebody was told, signed, that it is complete."""
    held_until: float | None = None
    """The last instant at which it is certain that nobody had lifted it. None: to the end."""
    lifted_at: float = inf
    """When its lift was signed. Regions hear of it at different times, so one in which it is still
    in force says nothing about that."""


@dataclass(frozen=True, slots=True)
class Flip:
    """The customer changed the state of a key. ``ends`` is when they began to change it back."""

    link: str
    state: str
    at: float
    at_ms: int
    ends: float
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A broker of a region began at ``at`` to run on a disk that had gone bad."""

    region: str
    at: float
    server: str
    what: str


@dataclass(slots=True)
class History:
    timing: Timing
    tenants: tuple[TenantSpec, ...]
    regions: tuple[str, ...]
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    kills: dict[str, Kill] = field(default_factory=dict)
    flips: list[Flip] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers whose content was not what had been encrypted."""
    lost: list[str] = field(default_factory=list)
    """Records that could not be opened when everything was healed, with why."""
    unhealed: list[str] = field(default_factory=list)
    """What did not work although everything was healed."""
    held: dict[str, dict[str, bool]] = field(default_factory=dict)
    """By region, its holds at the end, after everything was restarted once more, and whether each
    is lifted."""

    audit_replaced: list[str] = field(default_factory=list)
    """Regions whose audit stream was lost as a whole, and made anew."""
    journal_wrong: list[str] = field(default_factory=list)
    """What is wrong with the Auditor's journal at the end."""

    damages: list[Damage] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    """What operators did after disks had gone bad, as the runbook says."""

    @property
    def settles_s(self) -> float:
        """The longest for which any key has to answer before its hold is lifted."""
        settle_s = self.timing.settle_s
        by_link: dict[tuple[str, str], list[int]] = {}
        for kill in self.kills.values():
            if kill.cause == "l1":
                by_link.setdefault((kill.region, kill.target), []).append(kill.issued_ms)
        return max((damped(settle_s, times) for times in by_link.values()), default=settle_s)

    def reached(self, kill: Kill) -> list[TenantSpec]:
        """The tenants that a hold is on."""
        if kill.scope == "link":
            return [t for t in self.tenants if t.link == kill.target]
        return [t for t in self.tenants if t.name == kill.target]
