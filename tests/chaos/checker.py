"""The judge: which of the kill switch's promises a history breaks. Nothing here does anything.

It knows true time, for all instants of a history are one clock's, and what was said to somebody
outside; it never looks at a decision of the product. Numbers are those of the invariants in
``docs/chaos.md``.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from kcm_killswitch.model.timing import ANSWER_MAX_S, Timing
from kcm_schemas.codes import RETRYABLE, Code

from tests.chaos.history import Accepted, Flip, History, Kill, TenantSpec

REFUSALS = frozenset({"disabled", "forbidden", "pending_deletion", "deleted"})
"""States of a key by which its holder says no."""

PROBE_LATE_MS = 15_000
"""For which a hold may bear the key's name after the key was enabled again: a use of the key that
was under way, and a Core that was paused with its result."""

GONE = frozenset({Code.UNKNOWN_TENANT.value, Code.UNKNOWN_SERVICE.value})
"""What an instance says whose region's broker lost the registry: the runbook brings it back."""

PER_RULE_MAX = 5
"""Violations of one rule, tenant and region that are listed; the first ones tell the story."""


@dataclass(frozen=True, slots=True)
class Violation:
    rule: int
    text: str
    tenant: str = ""
    region: str = ""
    at: float = 0.0


def check(history: History) -> list[Violation]:
    """Everything that a history breaks."""
    found: list[Violation] = []
    by_place: dict[tuple[str, str], list[Accepted]] = defaultdict(list)
    for answer in history.accepted:
        by_place[answer.tenant, answer.region].append(answer)
    for answers in by_place.values():
        answers.sort(key=lambda answer: answer.at)
    for kill in history.kills.values():
        for tenant in history.reached(kill):
            for region in tenant.regions:
                answers = by_place[tenant.name, region]
                found += _after_complete(kill, tenant, region, answers)
                found += _after_bound(history, kill, tenant, region, answers)
    for flip in history.flips:
        for tenant in history.tenants:
            if tenant.link == flip.link:
                for region in tenant.regions:
                    answers = by_place[tenant.name, region]
                    found += _after_key(history.timing, flip, tenant, region, answers)
    found += [Violation(4, text) for text in (*history.lost, *history.wrong)]
    found += [Violation(9, text) for text in history.journal_wrong]
    found += _by_unreachable_alone(history)
    found += _disagreement(history)
    found += _lost_holds(history)
    found += _other_tenants(history)
    return found


def bound(lease_s: float, timing: Timing) -> float:
    """Seconds of true time after which what rests on a lease has ended, answers included."""
    return (lease_s + ANSWER_MAX_S) / (1 - timing.clock_error)


def ends_at(timing: Timing, kill: Kill, tenant: TenantSpec, region: str) -> float:
    """From when on nothing may be accepted in a region because of a hold."""
    own = kill.durable.get(region, inf) + bound(timing.control_lease_s, timing)
    known = sorted(at for name, at in kill.durable.items() if name in tenant.regions)
    needed = {"all": 1, "majority": len(tenant.regions) // 2 + 1, "local": len(known) + 1}
    if len(known) < needed[tenant.policy]:
        return own
    grace = timing.hyok_grace_s if tenant.model == "hyok" else timing.partition_grace_s
    return min(own, known[needed[tenant.policy] - 1] + bound(grace, timing))


def _between(answers: list[Accepted], after: float, before: float) -> list[Accepted]:
    first = bisect.bisect_right(answers, after, key=lambda answer: answer.at)
    return [a for a in answers[first : first + PER_RULE_MAX] if a.at < before]


def _after_complete(
    kill: Kill, tenant: TenantSpec, region: str, answers: list[Accepted]
) -> Iterator[Violation]:
    if kill.complete is None:
        return
    until = inf if kill.held_until is None else kill.held_until
    for answer in _between(answers, kill.complete, until):
        late = answer.at - kill.complete
        text = f"{answer.operation} accepted {late:.3f} s after {kill.hold_id[:8]} was complete"
        yield Violation(1, text, tenant.name, region, answer.at)


def _after_bound(
    history: History, kill: Kill, tenant: TenantSpec, region: str, answers: list[Accepted]
) -> Iterator[Violation]:
    if kill.cause != "operator":
        return
    limit = ends_at(history.timing, kill, tenant, region)
    until = inf if kill.held_until is None else kill.held_until
    for answer in _between(answers, limit, until):
        late = answer.at - limit
        text = f"{answer.operation} accepted {late:.3f} s after the bound of {kill.hold_id[:8]}"
        yield Violation(2, text, tenant.name, region, answer.at)


def _after_key(
    timing: Timing, flip: Flip, tenant: TenantSpec, region: str, answers: list[Accepted]
) -> Iterator[Violation]:
    """Nobody used the key meanwhile, so the lease ended whether it refused or was silent."""
    limit = flip.at + bound(timing.l1_lease_s, timing)
    for answer in _between(answers, limit, flip.ends):
        late = answer.at - limit
        text = f"{answer.operation} accepted {late:.3f} s after the bound of a {flip.state} key"
        yield Violation(2, text, tenant.name, region, answer.at)


def _by_unreachable_alone(history: History) -> Iterator[Violation]:
    for kill in history.kills.values():
        if kill.cause == "l1" and not any(
            flip.link == kill.target
            and flip.state in REFUSALS
            and flip.at_ms <= kill.issued_ms <= flip.ends_ms + PROBE_LATE_MS
            for flip in history.flips
        ):
            text = f"the key {kill.target} never refused, and there is the hold {kill.hold_id[:8]}"
            yield Violation(5, text, region=kill.region)


def _disagreement(history: History) -> Iterator[Violation]:
    known = {hold_id for held in history.held.values() for hold_id in held}
    for hold_id in sorted(known):
        said = {region: held.get(hold_id) for region, held in history.held.items()}
        if len(set(said.values())) > 1:
            yield Violation(6, f"the regions do not agree about {hold_id[:8]}: {said}")


def _lost_holds(history: History) -> Iterator[Violation]:
    """Whatever became of disks, an acknowledged hold is known everywhere at the end."""
    for kill in history.kills.values():
        if kill.durable or kill.complete is not None:
            for region, held in history.held.items():
                if kill.hold_id not in held:
                    text = f"the hold {kill.hold_id[:8]} was acknowledged and is not known any more"
                    yield Violation(8, text, kill.target, region)


def _other_tenants(history: History) -> Iterator[Violation]:
    spared = {tenant.name for tenant in history.tenants if tenant.spared}
    allowed = {code.value for code in RETRYABLE}
    told: set[tuple[str, str, str]] = set()
    for refused in history.refused:
        fine = allowed if refused.tenant in spared else allowed | {Code.TENANT_KILLED.value}
        if refused.code in GONE and any(
            damage.region == refused.region and damage.at <= refused.at
            for damage in history.damages
        ):
            continue
        place = (refused.tenant, refused.region, refused.code)
        if refused.code not in fine and place not in told:
            told.add(place)
            text = f"{refused.operation} was refused with {refused.code}"
            yield Violation(7, text, refused.tenant, refused.region, refused.at)
    yield from (Violation(7, text) for text in history.unhealed)
