"""What a run aims at: each focus brings about one situation in which a naive rule goes wrong.

Random faults meet a kill by chance, and a rule that is wrong for half a second is rarely seen to be
so. So half of the seeds draw a focus: faults around the first kill, in a region of whom it kills,
that last as long as the leases, and clients that ask often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.simulation.aim import OFTEN_S, Aim, stage
from tests.simulation.app_foci import APP_FOCI
from tests.simulation.moving import MOVING
from tests.simulation.region_foci import REGION_FOCI


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


def _newcomer(aim: Aim) -> None:
    """A stream forgets an incarnation that began while Cores lagged; it is cut off with a lease."""
    stage(aim, 10.0)
    aim.add("stay-away", 90.0, 83.0)
    aim.add("deaf-cores", 5.0, 4.7)
    aim.add("strand", 0.5, 0.0)
    aim.add("lose-its-incarnation", 0.4, 0.0)


def _another_era(aim: Aim) -> None:
    """A stream is made anew: its sequences are lower than when somebody who is cut off began."""
    stage(aim, 10.0)
    aim.add("stay-away", 90.0, 60.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("recreation", 0.4, 0.0)


def _replayed_first(aim: Aim) -> None:
    """The first record of somebody who is cut off is put above the hold."""
    stage(aim, 10.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("replay-first", -1.0, 0.0)


def _invented_incarnations(aim: Aim) -> None:
    """An instance that is cut off has had many more incarnations."""
    stage(aim, 10.0)
    aim.add("strand", 0.5, 0.0)
    aim.add("invent-incarnations", 0.4, 0.0)


def _unheard_renewals(aim: Aim) -> None:
    """Cores lag, and a stream forgets what they missed: a renewal of who is cut off."""
    stage(aim, 6.0)
    aim.add("deaf-cores", 15.0, 14.7)
    aim.add("lose-since", 14.9, 14.5)
    aim.add("strand", 0.5, 0.0)


def _overtaken(aim: Aim) -> None:
    """Writers of the same subject overtake one another, and some of what overtook is dropped."""
    aim.plan.store = replace(aim.plan.store, delay_s=0.001)
    aim.add("overtaken", aim.source.uniform(0.1, 6.0), 3 * aim.timing.control_lease_s)
    if aim.source.random() < 0.5:
        aim.only(replace(aim.kill, lift_after=1.0))


FOCI: Final[dict[str, Callable[[Aim], None]]] = (
    {
        "another-era": _another_era,
        "before-durable": _before_durable,
        "gaps": _gaps,
        "held-key": _held_key,
        "invented-incarnations": _invented_incarnations,
        "late-answers": _late_answers,
        "late-join": _late_join,
        "late-start": _late_start,
        "minority": _minority,
        "moment": _moment,
        "new-here": _new_here,
        "newcomer": _newcomer,
        "replayed-first": _replayed_first,
        "overtaken": _overtaken,
        "rollback": _rollback,
        "settling-key": _settling_key,
        "pages": _pages,
        "silent-key": _silent_key,
        "slow-acks": _slow_acks,
        "slow-side": _slow_side,
        "stale": _stale,
        "suspend": _suspend,
        "two-operators": _two_operators,
        "unheard-renewals": _unheard_renewals,
    }
    | REGION_FOCI
    | MOVING
    | APP_FOCI
)
"""By name."""
