"""What happened, in true time, as the oracle has it: its own record, and no code of production."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

from kcm_schemas.registry import RegionQuorum

EVENTS_KEPT: Final = 400
"""Last events that are shown when an invariant breaks."""


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """A tenant as the run was drawn."""

    name: str
    link: str
    uri: str
    regions: tuple[str, ...]
    policy: RegionQuorum
    model: Literal["byok", "hyok"]


@dataclass(slots=True)
class HoldFacts:
    """One hold. All times are true seconds."""

    hold_id: bytes
    scope: str
    target: str
    cause: str
    origin: str
    issuer: str
    first_at: float
    """When it came into being, or was first seen."""
    durable: dict[str, float] = field(default_factory=dict)
    """When a majority of each region's replicas first had it."""
    stored: set[str] = field(default_factory=set)
    lifts_stored: set[str] = field(default_factory=set)
    """Regions in which a majority ever had it, and its lift."""
    again: dict[str, float] = field(default_factory=dict)
    """When it was written again, of regions whose stream lost it; infinite until then."""
    void: bool = False
    """Whether there is a lift of it that does not count by the highest roster."""
    complete_at: float | None = None
    asked_at: float = 0.0
    """When it was asked whether it is complete, the first time that it was."""
    lifted_at: float | None = None
    """When its lift came into being, or was first seen."""

    def active(self, now: float) -> bool:
        """Whether nobody has lifted it yet."""
        return self.lifted_at is None or now < self.lifted_at


@dataclass(frozen=True, slots=True)
class Bounds:
    """The durations that the guarantees are made of, in seconds, and the clocks' error."""

    control_lease_s: float
    grace_byok_s: float
    grace_hyok_s: float
    l1_lease_s: float
    l1_lease_hyok_s: float
    clock_error: float
    settle_s: float = 0.0
    patience_s: float = 2.0
    """For how long an incarnation that agreed before may differ from a Core's registry."""
    answer_s: float = 5.0
    excuse_in_flight: bool = False
    """Whether an answer that was asked for before a kill was complete may still be accepted within
    D of that. Strictly, it may not: nothing is accepted after completion."""

    def stretched(self, lease_s: float) -> float:
        """``lease / (1 - e)``: the longest true time that a lease lasts, on whose clocks ever."""
        return lease_s / (1 - self.clock_error)

    def l1_s(self, tenant: TenantFacts) -> float:
        """For how long a use of a tenant's key counts."""
        return self.l1_lease_hyok_s if tenant.model == "hyok" else self.l1_lease_s

    def grace_s(self, tenant: TenantFacts) -> float:
        """The partition grace of a tenant."""
        return self.grace_hyok_s if tenant.model == "hyok" else self.grace_byok_s


class Events:
    """The last events, for whoever reads a violation."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, str]] = deque(maxlen=EVENTS_KEPT)

    def add(self, now: float, text: str) -> None:
        """Write one down."""
        self._kept.append((now, text))

    def last(self, count: int = 60) -> list[str]:
        """The last ones, oldest first."""
        return [f"{now:10.4f} {text}" for now, text in list(self._kept)[-count:]]
