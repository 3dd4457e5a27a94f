"""What goes wrong, and what mends all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.simulation.core import SimCore
from tests.simulation.fault_kit import Phase, catch_up
from tests.simulation.filling import DISKS
from tests.simulation.instance import Instance
from tests.simulation.key_faults import KeyFaults
from tests.simulation.missing import MISSING
from tests.simulation.network import Weather
from tests.simulation.network_faults import NetworkFaults
from tests.simulation.nodes import THREAD_S
from tests.simulation.paging import PAGING
from tests.simulation.plan import Fault
from tests.simulation.process_faults import ProcessFaults
from tests.simulation.results import RESULTS
from tests.simulation.setbacks import SETBACKS
from tests.simulation.stream import Store
from tests.simulation.stream_faults import StreamFaults

if TYPE_CHECKING:
    from tests.simulation.world import World


class Chaos:
    """Applies faults, and heals."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._loop: Final = world.loop
        self._phase: Final = Phase()
        self._kinds: Final[dict[str, Callable[[Fault], None]]] = {
            name: partial(do, world)
            for name, do in {**MISSING, **DISKS, **PAGING, **RESULTS, **SETBACKS}.items()
        }
        for kit in (ProcessFaults, NetworkFaults, StreamFaults, KeyFaults):
            self._kinds.update(kit(world, self._phase).kinds)

    def schedule(self, faults: list[Fault]) -> None:
        """Have every fault happen at its time."""
        for fault in faults:
            self._loop.at(fault.at, self._begin, fault)

    def heal(self) -> None:
        """Mend everything, and start whoever is down."""
        world, self._phase.over = self._world, True
        world.armed.clear()
        world.gone_s = 0.0
        world.answers_s = 0.0
        world.muted = False
        world.unheard.clear()
        world.stuck.clear()
        world.network.weather = Weather()
        world.network.cut_sides.clear()
        for leg in world.network.leaves.values():
            leg.loss = 0.0
            leg.mend(flush=True)
        for stream in (*world.streams.values(), *(one.stream for one in world.buckets.values())):
            stream.store = Store()
            stream.ack_s = stream.hold_s = stream.roster_s = 0.0
            stream.on_put = lambda _: True
            stream.start()
            if stream.split:
                stream.heal()
        world.keys.mend()
        world.rosters.heal()
        for store in (*world.disks.values(), *world.results.values()):
            store.mend()
        for instance in list(world.running.values()):
            self._mend(instance)
        for name in world.members:
            world.start(name)
        world.oracle.note("healed")

    def _begin(self, fault: Fault) -> None:
        if not self._phase.over:
            self._world.oracle.note(f"fault: {fault.kind} for {fault.lasts:.1f} s")
            self._kinds[fault.kind](fault)

    def _mend(self, instance: Instance) -> None:
        self._loop.resume(instance.node)
        instance.clock.wall_s = 0.0
        if isinstance(instance, SimCore):
            instance.unsealer.wrong_credentials = False
        for bus in (instance.region_bus, instance.control_bus):
            bus.connected = True
            bus.leg.mend(flush=True)
        for following in self._world.streams[instance.who.region].followings:
            following.slow_s, following.stuck = 0.0, False
            if following.lags:
                catch_up(following)
        instance.node.thread_s = THREAD_S
        if instance.reads is not None and instance.reads.following.lags:
            catch_up(instance.reads.following)
