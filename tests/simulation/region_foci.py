"""Situations of regions and what they keep: peer leases, rosters, disks and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.simulation.aim import Aim, stage


def _cut_off(aim: Aim) -> None:
    """A region hears nothing of the others for longer than the grace."""
    grace = aim.timing.partition_grace_s
    aim.add("region-cut", 0.05, 1.5 * grace + 10)


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
    stage(aim, lease_s)
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


REGION_FOCI: Final[dict[str, Callable[[Aim], None]]] = {
    "cut-off": _cut_off,
    "full-disk": _full_disk,
    "lost-repair": _lost_repair,
    "new-roster": _new_roster,
    "results-full": _results_full,
    "results-lost": _results_lost,
    "results-race": _results_race,
    "unheard-core": _unheard_core,
    "unheard-region": _unheard_region,
}
"""By name."""
