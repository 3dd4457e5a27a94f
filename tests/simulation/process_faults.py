"""Faults of processes and their machines: pauses, crashes, clocks, and who retires."""

from __future__ import annotations

from tests.simulation.fault_kit import FaultKit
from tests.simulation.plan import OPERATORS, Fault


class ProcessFaults(FaultKit):
    """Faults of processes and their machines."""

    def do_pause(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a pause")
            self._loop.pause(victim.node)
            self._later(fault, lambda: self._loop.resume(victim.node))

    def do_suspend(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None and victim.node.slept_at is None:
            self._world.coverage.saw("a suspend")
            self._loop.suspend(victim.node)
            self._later(fault, lambda: self._loop.resume(victim.node))

    def do_host_suspend(self, fault: Fault) -> None:
        """The machine of one side sleeps; what was sent to it meanwhile is lost."""
        self._world.coverage.saw("a suspend")
        for victim in self._side(fault):
            if victim.node.slept_at is None:
                self._loop.suspend(victim.node)
                for bus in (victim.region_bus, victim.control_bus):
                    self._break(fault, bus.leg, "cut")
                self._later(fault, lambda node=victim.node: self._loop.resume(node))
        self._silence(self._region(fault))

    def do_crash(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            name = victim.who.name
            self._world.crash(name)
            self._later(fault, lambda: self._world.start(name))

    def do_restart_loop(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is None:
            return
        name, world = victim.who.name, self._world
        world.coverage.saw("a restart loop")
        for number in range(4):
            again = fault.lasts if fault.lasts < 1 else 2.0
            self._loop.after(number * again, self._crash, name)
            self._loop.after(again * (number + world.random.uniform(0.05, 0.95)), world.start, name)

    def _crash(self, name: str) -> None:
        if not self._over:
            self._world.crash(name)

    def do_wall_jump(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a wall clock that jumps")
            victim.clock.wall_s = (fault.pick - 0.5) * 600
            self._later(fault, lambda: setattr(victim.clock, "wall_s", 0.0))

    def do_crash_after_purge(self, fault: Fault) -> None:
        self._world.armed["crash-after-purge"] += 1

    def do_kill_issuer(self, fault: Fault) -> None:
        self._world.armed["kill-issuer"] += 1

    def do_slow_answers(self, fault: Fault) -> None:
        """Cores' answers take long, though they were computed at once."""
        self._world.answers_s = 1.8
        self._later(fault, lambda: setattr(self._world, "answers_s", 0.0))

    def do_hold_reply(self, fault: Fault) -> None:
        self._world.armed["hold-reply"] += 4

    def do_crash_side(self, fault: Fault) -> None:
        """One side ends, and is started again."""
        for victim in self._side(fault):
            self._world.crash(victim.who.name)
            self._later(fault, lambda name=victim.who.name: self._world.start(name))

    def do_replace_side(self, fault: Fault) -> None:
        """One side goes on on other machines, whose disks are empty."""
        for victim in self._side(fault):
            self._world.disks.pop(victim.who.name, None)
        self.do_crash_side(fault)

    def do_crash_gateways(self, fault: Fault) -> None:
        """All Gateways of a region end, and are started again."""
        region = self._region(fault)
        for name, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                self._world.crash(name)
                self._later(fault, lambda name=name: self._world.start(name))

    def do_crash_cores(self, fault: Fault) -> None:
        """All Cores of a region end, and are started again."""
        for core in self._world.cores(self._region(fault)):
            self._world.crash(core.who.name)
            self._later(fault, lambda name=core.who.name: self._world.start(name))

    def do_new_roster(self, fault: Fault) -> None:
        """Who killed first is retired; a roster that says so comes to one region after another."""
        kills = self._world.plan.kills
        gone = kills[0].operator if kills else OPERATORS[0]
        listed = int(fault.pick * 104729) % 4 == 0
        self._world.rosters.retire(gone, listed=listed, lasts=fault.lasts)
