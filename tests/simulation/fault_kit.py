"""What faults of every kind need: whom they befall, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation.following import SimFollowing
from tests.simulation.instance import Instance
from tests.simulation.network import Leg
from tests.simulation.plan import Fault
from tests.simulation.stream import ControlStream

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass
class Phase:
    """Whether faults still happen."""

    over: bool = False


class FaultKit:
    """Faults of one kind: each method ``do_NAME`` is one fault."""

    def __init__(self, world: World, phase: Phase) -> None:
        self._world: Final = world
        self._loop: Final = world.loop
        self._phase: Final = phase

    @property
    def kinds(self) -> dict[str, Callable[[Fault], None]]:
        """The faults by their names in a plan."""
        return {
            name.removeprefix("do_").replace("_", "-"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    @property
    def _over(self) -> bool:
        return self._phase.over

    def _later(self, fault: Fault, undo: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self._over:
                undo()

        self._loop.after(fault.lasts, unless_over)

    def _victim(self, fault: Fault) -> Instance | None:
        running = [
            one
            for _, one in sorted(self._world.running.items())
            if fault.region in ("", one.who.region)
        ]
        return running[int(fault.pick * len(running))] if running else None

    def _region(self, fault: Fault) -> str:
        regions = [fault.region] if fault.region else self._world.plan.regions
        return regions[int(fault.pick * len(regions))]

    def _stream(self, fault: Fault) -> ControlStream:
        return self._world.streams[self._region(fault)]

    def _stored(self, fault: Fault) -> list[ControlStream]:
        """Everything that the brokers of a region store."""
        bucket = self._world.buckets.get(self._region(fault))
        return [self._stream(fault), *([bucket.stream] if bucket else [])]

    def _break(self, fault: Fault, leg: Leg, state: str) -> None:
        leg.state = "cut" if state == "cut" else "stalled"
        flush = fault.pick < 0.7
        self._later(fault, lambda: leg.mend(flush=flush))

    def _silence(self, region: str) -> None:
        for following in self._world.streams[region].followings:
            if following.connection.leg.state != "open":
                following.silence()

    def _catch_up(self, following: SimFollowing) -> None:
        catch_up(following)

    def _side(self, fault: Fault) -> list[Instance]:
        """Everybody on one side of a region, drawn; all of it where there is one Core only."""
        region, running = self._region(fault), sorted(self._world.running.items())
        here = [one for _, one in running if one.who.region == region]
        side = int(fault.pick * 7919) % 2
        picked = [one for one in here if one.who.side == side]
        roles = {one.who.role for one in picked}
        return picked if len(roles) == 2 else here


def catch_up(following: SimFollowing) -> None:
    """Deliver what a follower has missed while its broker lagged."""
    following.lags = False
    following.offer_missed()
