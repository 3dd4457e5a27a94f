"""When to probe a root key, and what the answer means.

Every root key that a region has open is used once an interval, by the first Core that is due: an
attestation of another Core postpones this Core's own probe to an interval after it. Intervals are
jittered, so Cores take turns instead of probing together. A key with a hold of this region is
probed further, because this region has to notice when the key is allowed again.

What an answer means::

    enabled                                   an attestation
    refused (disabled, pending, deleted)      purge, and hold the link
    forbidden, and this incarnation used it before   the same
    forbidden, and this incarnation never did        only this instance is wrong: unload here
    unreachable                               nothing: the lease continues, and ends
    invalid                                   the same, and an incident

``forbidden`` is the one refusal that a single instance with wrong credentials can cause by itself.
So one such instance must not cause a kill everywhere.

All probes stay within a number per second. Most of it is reserved for keys by which something is
open. Two groups share the rest: keys that do not answer, and keys that are only probed until they
are allowed again. If more keys are open than can be used again within their leases, ``crowded``
says so: then some have to be closed, because no lease is ever lengthened. ``most`` is the maximum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kcm_schemas.l1 import L1State

from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.rate_lane import Lane
from kcm_killswitch.model.timing import Timing

PROBES_PER_S: Final = 40.0
"""Maximum number of probes of one Core in a second.

Each takes about 7 to 11 ms of processor time, most of it in a child process, so all of them take a
third to a half of a processor.
"""

OPEN_SHARE: Final = 0.75
"""Part of the maximum rate that is reserved for keys by which something is open."""

FULL: Final = 0.9
"""Part of that reserved rate that open keys may need.

The rest covers rounding: a check begins whole probes, and begins them late.
"""

SPARE_MAX: Final = 16
"""Maximum number of probes under way of keys that did not answer or that open nothing.

Such probes may hang.
"""


class Verdict(Enum):
    """What has to be done about an answer."""

    KEY_USE = "key-use"
    HOLD = "hold"
    UNLOAD_HERE = "unload-here"
    NOTHING = "nothing"
    INCIDENT = "incident"


def judge(state: L1State, *, used_before: bool) -> Verdict:
    """What an answer means; ``used_before``: this incarnation was allowed to use the link once."""
    if state is L1State.ENABLED:
        return Verdict.KEY_USE
    if state is L1State.FORBIDDEN and not used_before:
        return Verdict.UNLOAD_HERE
    if state.refused:
        return Verdict.HOLD
    return Verdict.INCIDENT if state is L1State.INVALID else Verdict.NOTHING


@dataclass(slots=True)
class _Plan:
    due: float
    window_s: float | None
    """Seconds within which the key has to be used again; ``None`` if nothing is open by it."""
    silent: bool = False
    under_way: bool = False
    apart: bool = False
    """Whether the probe under way is one of ``SPARE_MAX``."""
    dropped: bool = False

    @property
    def spare(self) -> bool:
        """Whether the probe uses the spare rate, which keys with something open leave over."""
        return self.silent or self.window_s is None


class ProbeScheduler:
    """Plans the probes of one incarnation. ``chance`` draws from [0, 1)."""

    def __init__(
        self, timing: Timing, chance: Callable[[], float], per_s: float = PROBES_PER_S
    ) -> None:
        self._timing: Final = timing
        self._chance: Final = chance
        self._open_per_s: Final = per_s * OPEN_SHARE
        self._open: Final[Lane[Target]] = Lane(self._open_per_s)
        self._spare: Final[Lane[Target]] = Lane(per_s - self._open_per_s)
        self._plans: dict[Target, _Plan] = {}
        self._tickets: dict[Target, int] = {}
        self._ticket = 0
        self._links: dict[str, set[Target]] = {}
        self._windows: Counter[float] = Counter()
        self._apart = 0
        self._used: set[str] = set()

    def watch(self, target: Target, now: float, window_s: float | None) -> None:
        """Probe a key from now on: within ``window_s`` seconds if something is open by it."""
        plan = self._plans.get(target)
        if plan is None:
            # Spread the first probes, too: a thousand keys must not be due at once.
            plan = _Plan(now + self._chance() * self._timing.probe_interval_s, window_s)
            self._plans[target] = plan
            self._links.setdefault(target.link, set()).add(target)
        else:
            self._count(plan, -1)
            plan.window_s = window_s
            plan.dropped = False
        self._count(plan, 1)
        if not plan.under_way:
            self._plan(target, plan, plan.due)

    def drop(self, target: Target) -> None:
        """Stop probing a key; a probe under way may end."""
        plan = self._plans.get(target)
        if plan is None or plan.dropped:
            return
        self._count(plan, -1)
        plan.dropped = True
        self._tickets.pop(target, None)
        if not plan.under_way:
            self._forget(target)

    @property
    def targets(self) -> list[Target]:
        """The targets that are probed."""
        return [target for target, plan in self._plans.items() if not plan.dropped]

    @property
    def open_keys(self) -> int:
        """Number of keys by which something is open."""
        return self._windows.total()

    @property
    def most(self) -> int:
        """Maximum number of keys that can be open and still be used again in time.

        They take turns, so the shortest window of any key applies to all.
        """
        usual = self._timing.probe_window_s("byok")
        shortest = min((window for window, n in self._windows.items() if n), default=usual)
        return int(self._open_per_s * FULL * shortest)

    @property
    def crowded(self) -> bool:
        """Whether more keys are open than can be used again in time."""
        return self.open_keys > self.most

    def take(self, now: float, room: int) -> list[Target]:
        """Begin the probes that are due, at most ``room``, in the order of their waiting time.

        The order matters to a caller that can begin only a few: it must not leave out the same ones
        every time.
        """
        taken = self._open.take(now, room, self._tickets)
        left = min(room - len(taken), SPARE_MAX - self._apart)
        spare = self._spare.take(now, left, self._tickets)
        self._apart += len(spare)
        for target in taken + spare:
            self._plans[target].under_way = True
            del self._tickets[target]
        for target in spare:
            self._plans[target].apart = True
        return taken + spare

    def next_due(self) -> float | None:
        """When the next probe is due."""
        return min((self._plans[target].due for target in self._tickets), default=None)

    def soon(self, link: str, now: float) -> None:
        """Something happened to a link: probe its keys at once."""
        for target in self._links.get(link, ()):
            plan = self._plans[target]
            if target in self._tickets and plan.due > now:
                self._plan(target, plan, now)

    def attested(self, target: Target, moment: float) -> None:
        """A key was used at ``moment``: its next probe can wait for an interval from then."""
        plan = self._plans.get(target)
        if plan is None or plan.dropped:
            return
        due = max(plan.due, moment + self._interval())
        if due > plan.due and target in self._tickets:
            self._plan(target, plan, due)
        plan.due = due

    def ended(self, target: Target, state: L1State, began: float, now: float) -> Verdict:
        """A probe of this Core, or an unsealing, has ended.

        If there was no answer, the next attempt comes early: there is a lease to save, and an
        unloaded tenant to open.
        """
        verdict = judge(state, used_before=target.link in self._used)
        if verdict is Verdict.KEY_USE:
            self._used.add(target.link)
        plan = self._plans.get(target)
        if plan is None:
            return verdict
        self._apart -= plan.apart
        plan.under_way = plan.apart = False
        if plan.dropped:
            self._forget(target)
            return verdict
        plan.silent = verdict in (Verdict.NOTHING, Verdict.INCIDENT)
        due = now + self._interval() / 4 if plan.silent else began + self._interval()
        self._plan(target, plan, due)
        return verdict

    def _plan(self, target: Target, plan: _Plan, due: float) -> None:
        self._ticket += 1
        self._tickets[target] = self._ticket
        plan.due = due
        (self._spare if plan.spare else self._open).plan(target, due, self._ticket)

    def _forget(self, target: Target) -> None:
        del self._plans[target]
        self._links[target.link].discard(target)
        if not self._links[target.link]:
            del self._links[target.link]

    def _count(self, plan: _Plan, by: int) -> None:
        if plan.window_s is not None and not plan.dropped:
            self._windows[plan.window_s] += by

    def _interval(self) -> float:
        early = self._timing.probe_jitter * self._chance()
        return self._timing.probe_interval_s * (1 - early)
