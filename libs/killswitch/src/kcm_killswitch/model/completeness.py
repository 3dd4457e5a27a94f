"""When a kill is complete.

For each region in scope, the hold is acknowledged at stream sequence ``k``, and every incarnation
registered there (by lease entries read after ``k``) is accounted for in one of two ways. Either it
has sent a receipt (for a Core, also that the hold is on its own disk), and has reached the tenants
that the region's Core knows. Or its lease, and the last answer under it, have ended, counted from
``k`` or from when its last entry below ``k`` was heard. An entry above ``k`` gives no permission to
serve without having read the hold: an incarnation that has no entry below ``k`` began after it.

An incarnation that has read the hold may evaluate it otherwise: by an older roster the hold is
lifted, by another registry it does not concern this tenant. So an incarnation that writes entries
above ``k`` is not counted out by the time since the hold, but by its silence only. No receipt
counts from an incarnation with a lower roster than the Core that concludes.

What was heard counts inside a watch only (``kcm_killswitch.model.stream_watch``), and only if the
watch had lasted longer than any lease when the hold was noted at ``k``. Otherwise an incarnation
may be missing: a Core that started a second ago knows only itself. Then the region is complete once
the longest lease has ended since ``k``.

A region that cannot be reached counts once the peer leases of all its incarnations have ended. They
end when the region has not heard, for a grace, of enough regions that have the hold and the roster
by which it counts: no Core states a peer lease on a region with a higher roster than its own. Under
``local`` they never end. Nor do they count for a tenant that is not known here, because its set of
regions may be anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kcm_schemas.admin.kill_status import HoldStatus, IncarnationStatus, RegionStatus
from kcm_schemas.control import PENDING, Incarnation, Receipt
from kcm_schemas.registry import RegionQuorum

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Key
from kcm_killswitch.model.peer_leases import durable_majority
from kcm_killswitch.model.timing import Model, Timing

HowIncarnation = Literal["receipt", "waiting", "started-after", "lease-ended"]
HowRegion = Literal["durable", "watching", "differing", "leases-ended", "unbounded", "waiting"]


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """The report of a region after the hold was durable there (``durable_at`` 0: it is not).

    ``since_s`` is for how long the reporting Core has known that the hold is durable, and that the
    stream has the roster by which it counts: the timer that counts out an incarnation, or a region,
    that is silent. ``watched_s`` is for how long the Core had followed the stream before, without a
    gap. Both are seconds, and at most what has passed. ``reached`` is a digest of what is known
    there of the tenants that the hold reaches. ``settled``: no Core of the region knows different
    ones. ``roster`` is the roster version of the Core that concludes from these facts.
    """

    durable_at: int
    incarnations: Sequence[Incarnation]
    since_s: float = 0.0
    watched_s: float = 0.0
    reached: bytes = bytes(32)
    settled: bool = True
    roster: int = 0

    def overseen(self, timing: Timing) -> bool:
        """Whether what was heard counts, and also that an incarnation was not heard."""
        return self.watched_s >= self._longest_s(timing)

    def timed_out(self, timing: Timing) -> bool:
        """Whether every lease from before the hold has ended, also of unknown incarnations."""
        return self.since_s >= self._longest_s(timing)

    def left_s(self, timing: Timing) -> float:
        """Seconds until every lease from before the hold has ended."""
        return max(0.0, self._longest_s(timing) - self.since_s)

    def _longest_s(self, timing: Timing) -> float:
        return timing.incarnation_bound_s(
            max((incarnation.lease_ms for incarnation in self.incarnations), default=0) / 1000
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A receipt, and the milliseconds from the publication of the kill to its arrival.

    ``reached`` has every digest that its incarnation reported as reached; what it reached it has
    purged. ``raw`` is the receipt as it was signed.
    """

    receipt: Receipt
    after_ms: int
    reached: frozenset[bytes] = frozenset()
    raw: bytes = b""

    def has_reached(self, tenants: bytes) -> bool:
        """Whether the incarnation purged the tenants that the region's Core knows to be reached."""
        return tenants == self.receipt.reached or tenants in self.reached


@dataclass(frozen=True, slots=True)
class QuorumNeed:
    """A tenant in scope: its regions that are not retired, its policy, its link's model.

    ``retired`` is the number of its other regions. A silent region may not have heard of their
    retirement, and may count their statements, which may be all that it hears.
    """

    regions: frozenset[str]
    policy: RegionQuorum
    model: Model
    retired: int = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """The tenants that a hold reaches; ``closed`` when there can be no others than ``tenants``."""

    tenants: Sequence[QuorumNeed] = field(default_factory=tuple)
    closed: bool = False


def _nobody(_: str) -> bool:
    return False


def hold_status(
    state: HoldState,
    regions: Mapping[str, RegionFacts | None],
    receipts: Mapping[Key, Arrival],
    reach: Reach,
    timing: Timing,
    retired: Callable[[str], bool] = _nobody,
) -> HoldStatus:
    """The progress of a hold, or of its lift.

    ``regions`` maps every region in scope to its facts, or to ``None`` (not heard from).
    ``receipts`` maps instances and incarnation ids to the receipts of this hold: a receipt counts
    for its own incarnation only. A region without a registered incarnation has not really answered:
    at least the Core that answers is registered. ``retired`` says by the roster whether an instance
    is retired.
    """
    if state.lifted:
        return _lift_status(state, regions)
    durable = {name: facts.since_s for name, facts in regions.items() if facts and _durable(facts)}
    hows: dict[str, HowRegion] = {
        name: _region_how(name, regions[name], durable, reach, timing) for name in regions
    }
    incarnations = [
        incarnation
        for name, facts in regions.items()
        if facts is not None and hows[name] != "leases-ended"
        for incarnation in _incarnations(name, facts, receipts, timing, retired)
    ]
    served_out = all(how in ("durable", "leases-ended") for how in hows.values())
    return HoldStatus(
        hold_id=state.hold.id,
        scope=state.hold.scope,
        target=state.hold.target,
        cause=state.hold.cause,
        lifted=False,
        complete=bool(durable)
        and served_out
        and all(incarnation.how != "waiting" for incarnation in incarnations),
        regions=[
            RegionStatus(
                region=name,
                durable_at=facts.durable_at if facts else 0,
                how=hows[name],
                left_ms=_region_left_ms(name, hows[name], facts, durable, reach, timing),
            )
            for name, facts in regions.items()
        ],
        incarnations=incarnations,
    )


def _lift_status(state: HoldState, regions: Mapping[str, RegionFacts | None]) -> HoldStatus:
    """The progress of a lift: it is complete when every region has it."""
    stored = {name: facts.durable_at if facts else 0 for name, facts in regions.items()}
    return HoldStatus(
        hold_id=state.hold.id,
        scope=state.hold.scope,
        target=state.hold.target,
        cause=state.hold.cause,
        lifted=True,
        complete=bool(stored) and all(stored.values()),
        regions=[
            RegionStatus(region=name, durable_at=at, how="durable" if at else "waiting", left_ms=0)
            for name, at in stored.items()
        ],
        incarnations=[],
    )


def _region_left_ms(
    name: str,
    how: HowRegion,
    facts: RegionFacts | None,
    durable: Mapping[str, float],
    reach: Reach,
    timing: Timing,
) -> int:
    """Milliseconds until a region that is waited for counts, however little it reports; else 0."""
    if how in ("watching", "differing") and facts is not None:
        return _ms(facts.left_s(timing))
    if how == "waiting" and durable:
        mine = [tenant for tenant in reach.tenants if name in tenant.regions]
        left = [_peer_lease_left_s(tenant, durable, timing) for tenant in mine]
        known = [one for one in left if one is not None]
        return _ms(max(known, default=0.0)) if len(known) == len(left) else 0
    return 0


def _ms(seconds: float) -> int:
    """Whole milliseconds, at least one where anything is left."""
    return math.ceil(max(0.0, seconds) * 1000)


def _durable(facts: RegionFacts) -> bool:
    return facts.durable_at > 0 and bool(facts.incarnations)


def _region_how(
    name: str,
    facts: RegionFacts | None,
    durable: Mapping[str, float],
    reach: Reach,
    timing: Timing,
) -> HowRegion:
    if facts is not None and name in durable:
        if not (facts.settled or facts.timed_out(timing)):
            return "differing"
        return "durable" if facts.overseen(timing) or facts.timed_out(timing) else "watching"
    mine = [tenant for tenant in reach.tenants if name in tenant.regions]
    if not reach.closed or any(tenant.policy == "local" for tenant in mine):
        return "unbounded"
    ended = all(_peer_leases_ended(tenant, durable, timing) for tenant in mine)
    return "leases-ended" if ended else "waiting"


def _peer_leases_ended(tenant: QuorumNeed, durable: Mapping[str, float], timing: Timing) -> bool:
    """Whether no region of a tenant in which the hold is not durable can serve it any more."""
    left = _peer_lease_left_s(tenant, durable, timing)
    return left is not None and left <= 0


def _peer_lease_left_s(
    tenant: QuorumNeed, durable: Mapping[str, float], timing: Timing
) -> float | None:
    """Seconds until ``_peer_leases_ended`` is true; ``None`` while too few regions have the hold.

    Zero or less means that it is true now.
    """
    count = len(tenant.regions) + tenant.retired
    needed = 1 if tenant.policy == "all" else durable_majority(count)
    since = _nth_longest((durable[r] for r in tenant.regions if r in durable), needed)
    return None if since is None else timing.peer_lease_bound_s(tenant.model) - since


def _nth_longest(values: Iterable[float], n: int) -> float | None:
    ordered = sorted(values, reverse=True)
    return ordered[n - 1] if len(ordered) >= n else None


def _incarnations(
    region: str,
    facts: RegionFacts,
    receipts: Mapping[Key, Arrival],
    timing: Timing,
    retired: Callable[[str], bool],
) -> Iterator[IncarnationStatus]:
    overseen = facts.overseen(timing)
    for incarnation in facts.incarnations:
        arrival = receipts.get((incarnation.instance, incarnation.incarnation))
        how = _incarnation_how(facts, incarnation, arrival, timing, overseen=overseen)
        yield IncarnationStatus(
            instance=incarnation.instance,
            incarnation=incarnation.incarnation,
            role=incarnation.role,
            region=region,
            how=how,
            keys=arrival.receipt.keys if arrival else 0,
            purge_us=arrival.receipt.purge_us if arrival else 0,
            after_ms=arrival.after_ms if arrival else 0,
            trouble=_trouble(arrival),
            retired=retired(incarnation.instance),
            left_ms=_incarnation_left_ms(facts, incarnation, arrival, timing)
            if how == "waiting"
            else 0,
        )


def _incarnation_left_ms(
    facts: RegionFacts, incarnation: Incarnation, arrival: Arrival | None, timing: Timing
) -> int:
    """Milliseconds until a silent incarnation is counted out; 0 while the hold is not durable."""
    if facts.durable_at == 0:
        return 0
    disagrees = _disagrees(facts, incarnation, arrival)
    gone_s = timing.surely_s(incarnation.quiet_ms) if disagrees else facts.since_s
    return _ms(timing.incarnation_bound_s(incarnation.lease_ms / 1000) - gone_s)


def _trouble(arrival: Arrival | None) -> str:
    """Why a hold is not on a Core's disk, if an attempt to store it failed; else empty."""
    unkept = arrival.receipt.unkept if arrival else ""
    return "" if unkept == PENDING else unkept


def _incarnation_how(
    facts: RegionFacts,
    incarnation: Incarnation,
    arrival: Arrival | None,
    timing: Timing,
    *,
    overseen: bool,
) -> HowIncarnation:
    if arrival is not None and _agrees(facts, incarnation, arrival):
        return "receipt"
    bound = timing.incarnation_bound_s(incarnation.lease_ms / 1000)
    if _disagrees(facts, incarnation, arrival):
        # ``silent_ms`` grows although the incarnation lives: it does not cover entries above the
        # hold.
        return "lease-ended" if timing.surely_s(incarnation.quiet_ms) >= bound else "waiting"
    if facts.durable_at > 0:
        silent = timing.surely_s(incarnation.silent_ms) >= bound
        if facts.since_s >= bound and (silent or incarnation.latest < facts.durable_at):
            return "lease-ended"
        if overseen and silent:
            return "started-after" if incarnation.first > facts.durable_at else "lease-ended"
    return "waiting"


def _disagrees(facts: RegionFacts, incarnation: Incarnation, arrival: Arrival | None) -> bool:
    """Whether an incarnation that read the hold says that it does not count, or is not stored."""
    lower = incarnation.roster < facts.roster or bool(_trouble(arrival))
    return lower and 0 < facts.durable_at < incarnation.latest


def _agrees(facts: RegionFacts, incarnation: Incarnation, arrival: Arrival) -> bool:
    """Whether an incarnation purged the reached tenants, stored the hold, and has this roster.

    While a power failure could take the hold from a live Core, the kill waits for that Core.
    """
    kept = not arrival.receipt.unkept
    return kept and incarnation.roster >= facts.roster and arrival.has_reached(facts.reached)
