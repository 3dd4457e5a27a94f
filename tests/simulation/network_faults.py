"""Faults of networks: connections that are cut, stalled, lossy, or deaf on one side."""

from __future__ import annotations

from tests.simulation.fault_kit import FaultKit
from tests.simulation.instance import Instance
from tests.simulation.network import Weather
from tests.simulation.plan import Fault


class NetworkFaults(FaultKit):
    """Faults of networks."""

    def do_disconnect(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            for bus in (victim.region_bus, victim.control_bus):
                bus.disconnect()
                self._later(fault, bus.reconnect)
            self._silence(victim.who.region)

    def do_stall(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a late flush")
            for bus in (victim.region_bus, victim.control_bus):
                self._break(fault, bus.leg, "stalled")
            self._silence(victim.who.region)

    def do_leaf_stall(self, fault: Fault) -> None:
        self._world.coverage.saw("a late flush")
        self._break(fault, self._world.network.leaves[self._region(fault)], "stalled")

    def do_leaf_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a cut leaf")
        self._break(fault, self._world.network.leaves[self._region(fault)], "cut")

    def do_leaf_loss(self, fault: Fault) -> None:
        leg = self._world.network.leaves[self._region(fault)]
        leg.loss = 0.7
        self._later(fault, lambda: setattr(leg, "loss", 0.0))

    def do_backbone_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a cut leaf")
        for leg in self._world.network.leaves.values():
            self._break(fault, leg, "cut")

    def do_region_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a region cut off")
        self._break(fault, self._world.network.leaves[self._region(fault)], "stalled")

    def do_storm(self, fault: Fault) -> None:
        network, calm = self._world.network, self._world.network.weather
        network.weather = Weather(
            delay_s=0.02, late=0.1, late_s=15.0, loss=0.2, twice=0.1, reorder=True, pending_max=2
        )
        self._later(fault, lambda: setattr(network, "weather", calm))

    def do_deaf_side(self, fault: Fault) -> None:
        """The brokers of one side take writes, and deliver nothing of the kill switch."""
        self._world.coverage.saw("a side that hears nothing")
        for victim in self._side(fault):
            self._deafen(fault, victim)

    def do_deaf_gateways(self, fault: Fault) -> None:
        """A region's Gateways hear no broadcast, and are delivered nothing."""
        region = self._region(fault)
        for _, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                self._deafen(fault, victim)

    def do_cut_gateways(self, fault: Fault) -> None:
        """A region's Gateways hear nothing, and are heard by nobody."""
        region = self._region(fault)
        for _, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                for bus in (victim.region_bus, victim.control_bus):
                    bus.leg.state = "cut"
                    self._later(fault, lambda leg=bus.leg: leg.mend(flush=False))
        self._silence(region)

    def do_stuck_starts(self, fault: Fault) -> None:
        """Whoever starts in a region meanwhile hears no broadcast, and cannot read the stream."""
        stuck, region = self._world.stuck, self._region(fault)
        stuck[region] = []

        def free() -> None:
            for victim in stuck.pop(region, []):
                victim.control_bus.leg.mend(flush=False)
                for following in self._world.streams[region].followings:
                    following.stuck = False

        self._later(fault, free)

    def _deafen(self, fault: Fault, victim: Instance) -> None:
        self._break(fault, victim.control_bus.leg, "stalled")
        for following in self._world.streams[victim.who.region].followings:
            if following.connection is victim.region_bus:
                following.lags = True
                self._later(fault, lambda one=following: self._catch_up(one))

    def do_mute_side(self, fault: Fault) -> None:
        """One side hears no broadcast."""
        for victim in self._side(fault):
            victim.control_bus.leg.state = "cut"
            self._later(fault, lambda leg=victim.control_bus.leg: leg.mend(flush=False))

    def do_slow_side(self, fault: Fault) -> None:
        """One side hears no broadcast, and is delivered its stream long after it was written."""
        self.do_mute_side(fault)
        late = self._world.plan.timing.control_lease_s * (1.5 + fault.pick)
        for victim in self._side(fault):
            for following in self._world.streams[victim.who.region].followings:
                if following.connection is victim.region_bus:
                    following.slow_s = late
                    self._later(fault, lambda one=following: setattr(one, "slow_s", 0.0))
