"""Faults of brokers and what they store."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.fault_kit import FaultKit
from tests.simulation.plan import Fault
from tests.simulation.stream import Store


class StreamFaults(FaultKit):
    """Faults of brokers and what they store."""

    def do_late_rosters(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.roster_s = fault.lasts
        self._later(fault, lambda: setattr(stream, "roster_s", 0.0))

    def do_broker_restart(self, fault: Fault) -> None:
        for stream in self._stored(fault):
            stream.stop()
            self._later(fault, stream.start)

    def do_minority(self, fault: Fault) -> None:
        stream, sides = self._stream(fault), self._world.network.cut_sides
        if stream.split:
            return
        self._world.coverage.saw("a minority")
        streams = self._stored(fault)
        for one in streams:
            one.cut()
        sides.add(stream.region)

        def join() -> None:
            for one in streams:
                one.heal()
            sides.discard(stream.region)

        self._later(fault, join)

    def do_rollback(self, fault: Fault) -> None:
        self._world.coverage.saw("a rollback")
        self._stream(fault).roll_back(1 + int(fault.pick * 7919) % 25)

    def do_slip(self, fault: Fault) -> None:
        """A rollback of a few messages: soon as much is written as was lost."""
        self._world.coverage.saw("a rollback")
        self._stream(fault).roll_back(1 + int(fault.pick * 7919) % 4)

    def do_gaps(self, fault: Fault) -> None:
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = replace(calm, gap=0.5)
        self._later(fault, lambda: setattr(stream, "store", calm))

    def do_slow_acks(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.ack_s = 2.5 + 2 * fault.pick
        self._later(fault, lambda: setattr(stream, "ack_s", 0.0))

    def do_overtaken(self, fault: Fault) -> None:
        """Puts are on their way for long, are dropped there, or conflict with themselves."""
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = replace(calm, again=0.2, pending_s=0.5, dropped=0.3)
        self._later(fault, lambda: setattr(stream, "store", calm))

    def do_late_holds(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.hold_s = 4.0
        self._later(fault, lambda: setattr(stream, "hold_s", 0.0))

    def do_recreation(self, fault: Fault) -> None:
        self._world.coverage.saw("a recreation")
        self._stream(fault).recreate()

    def do_slow_store(self, fault: Fault) -> None:
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = Store(delay_s=0.4, lost=0.1, unheard=0.2, late=0.2, late_s=12.0, gap=0.1)
        self._later(fault, lambda: setattr(stream, "store", calm))
