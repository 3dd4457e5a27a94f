"""What a run aims at: each focus brings about one situation in which a naive rule goes wrong.

Random faults meet a kill by chance, and a rule that is wrong for half a second is rarely seen to be
so. So half of the seeds draw a focus: faults around the first kill, in a region of whom it kills,
that last as long as the leases, and clients that ask often.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kcm_killswitch.model.timing import Timing

from tests.simulation.moving import MOVING
from tests.simulation.network import Weather
from tests.simulation.stream import Store

if TYPE_CHECKING:
    from tests.simulation.plan import Fault, Kill, Plan, Relink

OFTEN_S: Final = 0.3
"""Seconds between two requests of a client."""


@dataclass(slots=True)
class Aim:
    """The plan that is aimed, and at what."""

    plan: Plan
    source: random.Random
    kill: Kill
    region: str
    pick: float
    """Chooses the same side, instance or key in every fault of this focus."""
    fault: Callable[..., Fault]
    move: Callable[..., Relink]

    @property
    def timing(self) -> Timing:
        """The system's durations."""
        return self.plan.timing

    def add(self, kind: str, before_s: float, lasts_s: float) -> None:
        """A fault that begins so many seconds before the kill."""
        at = max(3.0, self.kill.at - before_s)
        self.plan.faults.append(self.fault(at, lasts_s, kind, self.pick, self.region))

    def relink(self, before_s: float) -> None:
        """Whom the kill is about moves to its other link so many seconds before it."""
        at = max(3.0, self.kill.at - before_s)
        self.plan.relinks.append(self.move(at, self.kill.operator, self.kill.pick))

    def kill_later(self, at: float) -> None:
        """The kill comes at some time or later."""
        self.only(kill := replace(self.plan.kills[0], at=max(at, self.kill.at)))
        self.kill = kill
        self.plan.lasts = max(self.plan.lasts, kill.at + 25)

    def alone(self) -> None:
        """There is no other region, which would tell of the hold."""
        plan, region = self.plan, self.region
        plan.regions[:] = [region]
        plan.faults[:] = [one for one in plan.faults if one.region in ("", region)]
        plan.members = [one for one in plan.members if one.region == region]
        plan.tenants = [
            replace(one, regions=(region,), policy="all" if one.model == "hyok" else "local")
            for one in plan.tenants
        ]

    def only(self, *kills: Kill) -> None:
        """Nobody kills anything but this."""
        self.plan.kills[:] = sorted(kills, key=lambda kill: kill.at)


def _slow_acks(aim: Aim) -> None:
    """Writes are delivered at once and acknowledged late; then a side hears nothing."""
    lease = aim.timing.control_lease_s
    aim.add("slow-acks", 3 * lease, 6 * lease)
    aim.add("deaf-side", 0.02, 2 * lease + 8)


def _slow_side(aim: Aim) -> None:
    """A side is delivered everything, longer after it was written than a lease lasts."""
    lease = aim.timing.control_lease_s
    aim.add("slow-side", 3 * lease, 7 * lease)


def _suspend(aim: Aim) -> None:
    """A machine sleeps from before a kill until after its lease, and hears nothing then."""
    lease = aim.timing.control_lease_s
    aim.add("host-suspend", 0.05, lease * 1.4)
    aim.add("deaf-side", 0.1, lease * 1.4 + 8)


def _rollback(aim: Aim) -> None:
    """A stream goes back a little and is written on, while a side hears no broadcast."""
    aim.add("mute-side", 0.5, 3 * aim.timing.control_lease_s)
    aim.add("slip", aim.source.choice((0.05, 0.0, -0.2)), 0.0)


def _gaps(aim: Aim) -> None:
    """Deliveries are lost without a word, and broadcasts, too."""
    aim.plan.store = replace(aim.plan.store, delay_s=0.1)
    aim.plan.timing = replace(aim.timing, renew_every_s=0.4)
    aim.add("gaps", 0.3, 2.0)
    aim.add("mute-side", 0.5, 3 * aim.timing.control_lease_s)


def _late_start(aim: Aim) -> None:
    """A side is down when the kill comes, and starts later; perhaps it cannot read then."""
    aim.alone()
    aim.add("crash-side", 1.0, 6.0)
    if aim.source.random() < 0.5:
        aim.add("stuck-starts", -1.0, 3 * aim.timing.control_lease_s)


def _before_durable(aim: Aim) -> None:
    """A side starts anew between the broadcast and the stream, and then hears nothing."""
    aim.alone()
    aim.add("late-holds", 0.1, 3.0)
    aim.add("replace-side", -0.15, 0.1)
    aim.add("deaf-side", -2.5, 3 * aim.timing.control_lease_s)


def _new_here(aim: Aim) -> None:
    """Whoever is asked whether a kill is complete has just started; Gateways hear nothing."""
    aim.add("deaf-gateways", 0.05, 2 * aim.timing.control_lease_s + 8)
    aim.add("crash-cores", 0.6, 0.3)


def _minority(aim: Aim) -> None:
    """A side is cut off from the majority, and its broker answers on."""
    aim.add("minority", 0.05, 3 * aim.timing.control_lease_s + 8)


def _cut_off(aim: Aim) -> None:
    """A region hears nothing of the others for longer than the grace."""
    grace = aim.timing.partition_grace_s
    aim.add("region-cut", 0.05, 1.5 * grace + 10)


def _silent_key(aim: Aim) -> None:
    """A key answers slowly, and then not at all; answers are slow everywhere."""
    lease = aim.timing.l1_lease_s
    aim.plan.weather = replace(aim.plan.weather, delay_s=0.3, late=0.0)
    aim.add("l1-slow", 15.0, 2 * lease + 30)
    aim.add("l1-silent", 0.0, 1.5 * lease + 10)
    aim.only()


def _late_join(aim: Aim) -> None:
    """A key falls silent, and answers of Cores take long: who asks joins those under way."""
    aim.alone()
    timing = replace(aim.timing, probe_interval_s=0.5, renew_every_s=0.3)
    aim.plan.timing = timing
    aim.plan.weather = replace(aim.plan.weather, delay_s=0.001, late=0.0, loss=0.0)
    aim.plan.every_s = OFTEN_S / 2
    aim.add("l1-silent", 0.0, 1.5 * timing.l1_lease_s + 10)
    aim.add("slow-answers", 5.0, timing.l1_lease_s + 10)
    aim.only()


def _settling_key(aim: Aim) -> None:
    """A key refuses for a moment while it is slow: uses are under way at both ends of that."""
    aim.add("l1-slow", 10.0, 60.0)
    aim.add("l1-moment", 0.0, 1.5)
    aim.only()


def _held_key(aim: Aim) -> None:
    """An operator kills a link whose key refuses for a moment, too."""
    aim.add("l1-moment", -1.0, 1.5)
    aim.only(replace(aim.kill, scope="link", lift_after=None))


def _two_operators(aim: Aim) -> None:
    """Two kill the same, and one of them lifts again."""
    first = replace(aim.kill, operator="ada", lift_after=None)
    second = replace(aim.kill, operator="bob", at=aim.kill.at + 0.5, lift_after=1.5)
    aim.only(first, second)


def _moment(aim: Aim) -> None:
    """A kill is lifted while operations that began before it are under way."""
    aim.plan.weather = replace(aim.plan.weather, delay_s=0.15, late=0.0)
    aim.plan.worker = 0.9
    aim.only(replace(aim.kill, lift_after=0.05))


def _stale(aim: Aim) -> None:
    """A kill is lifted, and its messages come again, late and in any order."""
    aim.plan.weather = replace(aim.plan.weather, twice=0.3, late=0.15, late_s=6.0, reorder=True)
    again = replace(aim.kill, at=aim.kill.at + 4.0, lift_after=None)
    aim.only(replace(aim.kill, lift_after=1.0), again)


def _pages(aim: Aim) -> None:
    """What a key caused is lifted and paged; then old messages come, and a Core lies in a page."""
    plan = aim.plan
    plan.page_s, plan.lasts = 0.5, 110.0 + plan.lasts / 1000
    plan.weather = replace(plan.weather, twice=0.3, late=0.1, late_s=6.0, reorder=True)
    aim.kill = replace(aim.kill, at=80.0, lift_after=None)
    aim.only(aim.kill)
    aim.add("l1-disabled", 68.0, 6.0)
    aim.add("crash-side", 20.0, 2.0)
    aim.add("shrink-pages", 12.0, 0.0)
    aim.add("replay-holds", 6.0, 0.0)
    aim.add("lie-in-a-page", -4.0, 0.0)


def _late_answers(aim: Aim) -> None:
    """Answers are kept between a check and the sending."""
    aim.add("hold-reply", 1.0, 0.0)
    aim.add("hold-reply", 0.2, 0.0)


def _stage(aim: Aim, lease_s: float) -> None:
    """One region, calm, with leases of this length, and one kill late in the run."""
    aim.alone()
    aim.plan.timing = replace(aim.timing, control_lease_s=lease_s, renew_every_s=lease_s / 5)
    aim.plan.weather, aim.plan.store = Weather(), Store()
    aim.plan.faults.clear()
    aim.plan.lasts = 110.0 + aim.plan.lasts / 1000
    aim.kill = replace(aim.kill, at=90.0, lift_after=None)
    aim.only(aim.kill)
    aim.plan.rates[aim.kill.operator] = 1.0  # whose clock says when it is time to kill


def _newcomer(aim: Aim) -> None:
    """A stream forgets an incarnation that began while Cores lagged; it is cut off with a lease."""
    _stage(aim, 10.0)
    aim.add("stay-away", 90.0, 83.0)
    aim.add("deaf-cores", 5.0, 4.7)
    aim.add("strand", 0.5, 0.0)
    aim.add("lose-its-incarnation", 0.4, 0.0)


def _another_era(aim: Aim) -> None:
    """A stream is made anew: its sequences are lower than when somebody who is cut off began."""
    _stage(aim, 10.0)
    aim.add("stay-away", 90.0, 60.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("recreation", 0.4, 0.0)


def _replayed_first(aim: Aim) -> None:
    """The first record of somebody who is cut off is put above the hold."""
    _stage(aim, 10.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("replay-first", -1.0, 0.0)


def _invented_incarnations(aim: Aim) -> None:
    """An instance that is cut off has had many more incarnations."""
    _stage(aim, 10.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("invent-incarnations", 0.4, 0.0)


def _unheard_renewals(aim: Aim) -> None:
    """Cores lag, and a stream forgets what they missed: a renewal of who is cut off."""
    _stage(aim, 6.0)
    aim.add("deaf-cores", 15.0, 14.7)
    aim.add("lose-since", 14.9, 14.5)
    aim.add("strand", 0.5, 0.0)


def _full_disk(aim: Aim) -> None:
    """Disks refuse a hold for some time; the stream is lost, and all processes start anew."""
    draw, plan = aim.source.uniform, aim.plan
    if aim.source.random() < 0.8:
        aim.alone()
    plan.lasts = max(plan.lasts, aim.kill.at + 40.0 + plan.lasts / 1000)
    if aim.source.random() < 0.8:
        aim.add("full-disks", 0.5, draw(4.0, 25.0))
    else:
        aim.add("failing-write", 0.5, 0.0)
    aim.add("blackout", -draw(1.5, 12.0), draw(0.5, 4.0))


def _overtaken(aim: Aim) -> None:
    """Writers of the same subject overtake one another, and some of what overtook is dropped."""
    aim.plan.store = replace(aim.plan.store, delay_s=0.001)
    aim.add("overtaken", aim.source.uniform(0.1, 6.0), 3 * aim.timing.control_lease_s)
    if aim.source.random() < 0.5:
        aim.only(replace(aim.kill, lift_after=1.0))


def _new_roster(aim: Aim) -> None:
    """Who killed and lifted is retired; Gateways hear of it late, or there is another lift."""
    plan, region, lease = aim.plan, aim.region, aim.timing.control_lease_s
    aim.kill = kill = replace(aim.kill, at=min(aim.kill.at, 40.0), lift_after=1.5)
    plan.lasts = max(plan.lasts, kill.at + 50.0 + plan.lasts / 1000)
    plan.rates[kill.operator] = 1.0
    if aim.source.random() < 0.6:
        aim.alone()
    if aim.source.random() < 0.5:
        aim.only(kill, replace(kill, at=kill.at + 12.0, lift_after=1.0))
        aim.add("deaf-gateways", -4.0, 2 * lease + 8)
    else:  # the one Core has it from an operator, and cannot pass it on for longer than any lease
        aim.only(kill)
        others = [f"core-{region}-{n}" for n in (1, 2)]
        plan.members = [one for one in plan.members if one.name not in others]
        aim.add("late-rosters", -4.0, 25.0)
    aim.add("new-roster", -aim.source.uniform(4.05, 4.5), aim.source.choice((0.1, 3.0)))


def _unheard_region(aim: Aim) -> None:
    """A region asks the others and does not answer; a roster that ends a lift is not brought there.

    Who killed and lifted is retired.
    """
    _unheard(aim)
    aim.add("unbrought-roster", -4.0, 0.0)


def _unheard_core(aim: Aim) -> None:
    """The same, but one of two Cores there has the roster, and cannot pass it on."""
    _unheard(aim)
    plan, name = aim.plan, f"core-{aim.region}-1"
    first = next(one for one in plan.members if one.name == f"core-{aim.region}-0")
    plan.members.append(replace(first, name=name))
    plan.rates.setdefault(name, 1.0)
    plan.wall_s.setdefault(name, 0.0)
    aim.add("late-rosters", -4.0, aim.plan.lasts)


def _unheard(aim: Aim) -> None:
    _pair(aim, 6.0)
    plan, lasts = aim.plan, 2 * aim.timing.partition_grace_s + 30
    aim.kill = replace(aim.kill, at=40.0, lift_after=1.5, scope="tenant", region_pick=0.0)
    aim.only(aim.kill)
    aim.add("unheard-region", -5.0, lasts)
    aim.add("new-roster", -6.0, 0.1)
    plan.lasts = aim.kill.at + lasts + 10.0 + plan.lasts / 1000


def _pair(aim: Aim, lease_s: float) -> None:
    """Two regions that have every tenant, calm, and hear each other every three seconds."""
    _stage(aim, lease_s)
    plan, region, home = aim.plan, aim.region, "us" if aim.region == "eu" else "eu"
    plan.regions[:] = sorted((region, home))
    aim.plan.timing = replace(
        aim.timing, renew_every_s=0.4, partition_grace_s=10.0, hyok_grace_s=10.0, pull_every_s=3.0
    )
    plan.tenants = [replace(one, regions=(home, region), policy="all") for one in plan.tenants]
    plan.members = [
        replace(plan.members[0], name=f"{short}-{where}-0", role=role, region=where, side=0)
        for where in plan.regions
        for short, role in (("core", "core"), ("gw", "gateway"))
    ]
    for one in plan.members:
        plan.rates.setdefault(one.name, 1.0)
        plan.wall_s.setdefault(one.name, 0.0)


def _lost_repair(aim: Aim) -> None:
    """A region that hears no broadcast learns of a hold, and forgets it with all that knew it."""
    _pair(aim, 10.0)
    aim.only(replace(aim.kill, scope="tenant", region_pick=0.0))
    aim.add("mute", 0.1, 0.0)
    aim.add("lose-repair", 0.1, 0.0)


def _results_race(aim: Aim) -> None:
    """Cores and regions are asked at the same moment, and their buckets are slow."""
    aim.plan.asks_s = 0.2
    aim.add("slow-results", 1.0, 60.0)
    if aim.source.random() < 0.4:
        aim.add("unheard-result", 0.5, 0.0)


def _results_full(aim: Aim) -> None:
    """A region's bucket takes nothing around the kill; then its Cores start anew."""
    aim.plan.asks_s = 0.5
    lasts = aim.source.choice((2.0, 15.0, 40.0))
    aim.add("full-results", 1.0, lasts)
    aim.add("crash-cores", -lasts - aim.source.uniform(-2.0, 6.0), 1.0)


def _results_lost(aim: Aim) -> None:
    """A region's bucket is emptied when the kill is complete; some of its Cores start anew.

    Often there is no other region, which would offer what it has.
    """
    if aim.source.random() < 0.7:
        aim.alone()
    aim.plan.asks_s = 0.5
    after = aim.source.uniform(2.0, 25.0)
    aim.add("lost-results", -after, 0.0)
    gone = aim.source.choice(("", "crash-side", "crash-cores"))
    if gone:
        aim.add(gone, -after + aim.source.uniform(-1.0, 1.0), 1.0)


FOCI: Final[dict[str, Callable[[Aim], None]]] = {
    "another-era": _another_era,
    "before-durable": _before_durable,
    "cut-off": _cut_off,
    "full-disk": _full_disk,
    "gaps": _gaps,
    "held-key": _held_key,
    "invented-incarnations": _invented_incarnations,
    "late-answers": _late_answers,
    "late-join": _late_join,
    "late-start": _late_start,
    "lost-repair": _lost_repair,
    "minority": _minority,
    "moment": _moment,
    "new-here": _new_here,
    "newcomer": _newcomer,
    "replayed-first": _replayed_first,
    "new-roster": _new_roster,
    "overtaken": _overtaken,
    "rollback": _rollback,
    "results-full": _results_full,
    "results-lost": _results_lost,
    "results-race": _results_race,
    "settling-key": _settling_key,
    "pages": _pages,
    "silent-key": _silent_key,
    "slow-acks": _slow_acks,
    "slow-side": _slow_side,
    "stale": _stale,
    "suspend": _suspend,
    "two-operators": _two_operators,
    "unheard-core": _unheard_core,
    "unheard-region": _unheard_region,
    "unheard-renewals": _unheard_renewals,
} | MOVING
"""By name."""
