"""A plan that is aimed at one kill, and what a focus adds to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kcm_killswitch.model.timing import Timing

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


def stage(aim: Aim, lease_s: float) -> None:
    """One region, calm, with leases of this length, and one kill late in the run."""
    aim.alone()
    aim.plan.timing = replace(aim.timing, control_lease_s=lease_s, renew_every_s=lease_s / 5)
    aim.plan.weather, aim.plan.store = Weather(), Store()
    aim.plan.faults.clear()
    aim.plan.lasts = 110.0 + aim.plan.lasts / 1000
    aim.kill = replace(aim.kill, at=90.0, lift_after=None)
    aim.only(aim.kill)
    aim.plan.rates[aim.kill.operator] = 1.0  # whose clock says when it is time to kill
