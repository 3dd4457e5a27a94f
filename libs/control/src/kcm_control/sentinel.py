"""When to use a customer's key, and what its answer means.

Every key that a region has open is used once an interval, by whichever Core is first: a proof that
somebody else wrote postpones the own probe to an interval after it. Intervals are jittered, so
Cores take turns instead of asking together. A key whose hold this region placed is probed on, for
it is this region that has to notice when it is allowed again.

What an answer means::

    enabled                                   a proof
    refused (disabled, pending, deleted)      purge, and hold the link
    forbidden, and this boot used it before   the same
    forbidden, and this boot never did        this instance alone is wrong: seal it here
    unreachable                               nothing: the lease goes on, and ends
    invalid                                   the same, and an incident

``forbidden`` is the one refusal that a single instance with wrong credentials can cause by itself,
so that one alone must not kill everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kcm_schemas.l1 import L1State

from kcm_control.proofs import Target
from kcm_control.timing import Timing


class Verdict(Enum):
    """What has to be done about an answer."""

    PROOF = "proof"
    HOLD = "hold"
    SEAL_HERE = "seal-here"
    NOTHING = "nothing"
    INCIDENT = "incident"


def judge(state: L1State, *, used_before: bool) -> Verdict:
    """What an answer means; ``used_before``: this boot was allowed to use the link once."""
    if state is L1State.ENABLED:
        return Verdict.PROOF
    if state is L1State.FORBIDDEN and not used_before:
        return Verdict.SEAL_HERE
    if state.refused:
        return Verdict.HOLD
    return Verdict.INCIDENT if state is L1State.INVALID else Verdict.NOTHING


@dataclass(slots=True)
class _Plan:
    due: float
    under_way: bool = False


class Sentinel:
    """Plans the probes of one boot. ``chance`` draws from [0, 1)."""

    def __init__(self, timing: Timing, chance: Callable[[], float]) -> None:
        self._timing: Final = timing
        self._chance: Final = chance
        self._plans: dict[Target, _Plan] = {}
        self._used: set[str] = set()

    def watch(self, targets: Iterable[Target], now: float) -> None:
        """These have to be probed, and no others."""
        wanted = set(targets)
        self._plans = {t: plan for t, plan in self._plans.items() if t in wanted or plan.under_way}
        for target in wanted - self._plans.keys():
            # Spread from the first one on: a thousand keys must not be due at once.
            self._plans[target] = _Plan(now + self._chance() * self._timing.probe_interval_s)

    @property
    def targets(self) -> list[Target]:
        """What is probed."""
        return list(self._plans)

    def due(self, now: float) -> list[Target]:
        """What has to be probed now, what waited longest first.

        Who can begin only a few of them must not leave out the same ones every time.
        """
        due = [(p.due, t) for t, p in self._plans.items() if now >= p.due and not p.under_way]
        return [target for _, target in sorted(due)]

    def next_due(self) -> float | None:
        """When the next probe is due."""
        return min((p.due for p in self._plans.values() if not p.under_way), default=None)

    def soon(self, link: str, now: float) -> None:
        """Something happened to a link: ask at once."""
        for target, plan in self._plans.items():
            if target.link == link:
                plan.due = now

    def began(self, target: Target) -> None:
        """A probe is under way."""
        if target in self._plans:
            self._plans[target].under_way = True

    def proven(self, target: Target, moment: float) -> None:
        """Somebody used the key at ``moment``: the own probe can wait for an interval from then."""
        plan = self._plans.get(target)
        if plan is not None:
            plan.due = max(plan.due, moment + self._interval())

    def ended(self, target: Target, state: L1State, began: float, now: float) -> Verdict:
        """An own probe, or an unseal, ended.

        Where nobody answered, the next attempt comes early: there is a lease to save, and a sealed
        tenant to open.
        """
        verdict = judge(state, used_before=target.link in self._used)
        if verdict is Verdict.PROOF:
            self._used.add(target.link)
        plan = self._plans.get(target)
        if plan is not None:
            plan.under_way = False
            answered = verdict not in (Verdict.NOTHING, Verdict.INCIDENT)
            plan.due = began + self._interval() if answered else now + self._interval() / 4
        return verdict

    def _interval(self) -> float:
        early = self._timing.probe_jitter * self._chance()
        return self._timing.probe_interval_s * (1 - early)
