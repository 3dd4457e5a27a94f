"""What a region lost for good: the oracle has to know, and production cannot.

A hold that was acknowledged is lost when the stream loses it with everybody who would write it
again. That may befall a hold whose kill is not complete, or was completed while a Core was away.
It must not befall one that is on the disk of every Core of the region, by their own word: that one
is in force whatever becomes of the stream and of all processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.roster import Role

if TYPE_CHECKING:
    from tests.simulation.world import World

View = dict[bytes, bool]
"""Holds that somebody has, and whether they are lifted there."""


class Losing:
    """Compares what is left with what was acknowledged, whenever something is lost."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._vouched: Final[set[tuple[str, bytes]]] = set()
        """Regions and holds of which every Core of the region said that it keeps them."""
        self.lifts: Final[set[bytes]] = set()
        """Holds whose lift is nowhere any more: somebody has to lift them once more."""

    def said_complete(self, status: HoldStatus) -> None:
        """A kill is complete, and these incarnations have vouched for it."""
        for region in self._world.plan.regions:
            said = {
                incarnation.instance
                for incarnation in status.incarnations
                if (incarnation.region, incarnation.role, incarnation.how)
                == (region, Role.CORE, "receipt")
            }
            if said >= set(self._cores(region)):
                self._vouched.add((region, status.hold_id))

    def vouched(self, region: str) -> set[bytes]:
        """The holds that a region must not lose."""
        return {hold_id for where, hold_id in self._vouched if where == region}

    def lost(self, region: str) -> None:
        """A region's stream went back, or somebody there ended."""
        oracle = self._world.oracle
        here = oracle.judgement.read(self._world.streams[region].entries())
        oracle.went_back(region, here)
        if not self._world.rosters.stored(region):
            oracle.judgement.roster_lost(region)
        alive = [self._known(name) for name in self._cores(region)]
        disks = [self._disk(name) for name in self._cores(region)]
        for hold_id, facts in oracle.holds.items():
            held = [view for view in (here, *alive) if hold_id in view]
            kept = held or all(hold_id in disk for disk in disks)
            if region in facts.durable and not kept and (region, hold_id) not in self._vouched:
                oracle.lost(hold_id, region)
                self._world.coverage.saw("a hold lost for good")
        self._lost_lifts()

    def _lost_lifts(self) -> None:
        world = self._world
        lifted = [facts for facts in world.oracle.holds.values() if facts.lifted_at is not None]
        if not lifted:
            return
        cores = [one.name for one in world.plan.members if one.role == "core"]
        views: list[View] = [
            *(world.oracle.judgement.read(stream.entries()) for stream in world.streams.values()),
            *map(self._known, cores),
            *map(self._disk, cores),
        ]
        for facts in lifted:
            if not any(view.get(facts.hold_id) for view in views):
                self.lifts.add(facts.hold_id)

    def unkept(self) -> list[str]:
        """Holds that a Core knows and does not have on its disk as it knows them."""
        wrong = []
        for name, one in sorted(self._world.running.items()):
            if one.who.role == "core":
                known, disk = self._known(name), self._disk(name)
                lacks = [
                    hold_id for hold_id, lifted in known.items() if disk.get(hold_id) != lifted
                ]
                wrong += [f"{name} keeps no {hold_id.hex()[:8]}" for hold_id in lacks]
        return wrong

    def _cores(self, region: str) -> Iterable[str]:
        members = self._world.plan.members
        return [one.name for one in members if (one.role, one.region) == ("core", region)]

    def _known(self, name: str) -> View:
        one = self._world.running.get(name)
        return {} if one is None else self._world.oracle.judgement.seen(one.revocations.holds)

    def _disk(self, name: str) -> View:
        disk = self._world.disks.get(name)
        return self._world.oracle.judgement.judge(disk.statements) if disk is not None else {}
