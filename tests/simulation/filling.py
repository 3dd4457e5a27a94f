"""Faults of Cores' disks, and what makes them matter: a region that loses everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.simulation.disk import SimDisk

if TYPE_CHECKING:
    from tests.simulation.plan import Fault
    from tests.simulation.world import World


def full_disks(world: World, fault: Fault) -> None:
    """The disks of a region's Cores are full for a while, or that of one of them."""
    for disk in _disks(world, fault):
        disk.full = True
        world.loop.after(fault.lasts, disk.mend)


def failing_write(world: World, fault: Fault) -> None:
    """The next write fails on the disks of a region's Cores, or on one of them."""
    for disk in _disks(world, fault):
        disk.fails += 1 + int(fault.pick * 7919) % 2


def blackout(world: World, fault: Fault) -> None:
    """A region loses its stream and all of its processes; its disks and other regions are left."""
    region = _region(world, fault)
    names = [one.name for one in world.plan.members if one.region == region]
    world.coverage.saw("a region that loses its stream and every process")
    for name in names:
        world.crash(name)
    known = world.oracle.holds
    active = [i for i in world.losing.vouched(region) if known[i].active(world.loop.now)]
    world.coverage.saw("a kill that outlives both", len(active))
    world.streams[region].recreate()
    for name in names:
        world.loop.after(fault.lasts * world.random.random(), world.start, name)


def _disks(world: World, fault: Fault) -> list[SimDisk]:
    region = _region(world, fault)
    names = [one.name for one in world.plan.members if (one.role, one.region) == ("core", region)]
    if int(fault.pick * 104729) % 3 == 0:
        names = names[:1]
    return [world.disks.setdefault(name, SimDisk()) for name in names]


def _region(world: World, fault: Fault) -> str:
    regions = world.plan.regions
    return fault.region or regions[int(fault.pick * len(regions))]


DISKS: Final[dict[str, Callable[[World, Fault], None]]] = {
    "blackout": blackout,
    "failing-write": failing_write,
    "full-disks": full_disks,
}
"""By name."""
