"""Faults of customers' keys: they refuse, are silent, disagree, or flap."""

from __future__ import annotations

from typing import Final

from kcm_core.providers.state import L1State

from tests.simulation.core import SimCore
from tests.simulation.fault_kit import FaultKit
from tests.simulation.plan import Fault

REFUSALS: Final = (
    L1State.DISABLED, L1State.FORBIDDEN, L1State.PENDING_DELETION, L1State.DELETED,
)  # fmt: skip


class KeyFaults(FaultKit):
    """Faults of customers' keys."""

    def _uri(self, fault: Fault) -> str:
        uris = sorted(self._world.keys.keys)
        return uris[int(fault.pick * len(uris))]

    def _turn(self, fault: Fault, state: L1State, regions: list[str]) -> None:
        keys, uri, spread = self._world.keys, self._uri(fault), 4 * fault.pick
        keys.turn(uri, state, spread, regions)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, spread, regions))

    def do_l1_disabled(self, fault: Fault) -> None:
        state = REFUSALS[int(fault.pick * 7919) % len(REFUSALS)]
        self._turn(fault, state, self._world.plan.regions)

    def do_l1_unreachable(self, fault: Fault) -> None:
        self._turn(fault, L1State.UNREACHABLE, self._world.plan.regions)

    def do_l1_silent(self, fault: Fault) -> None:
        """At once and everywhere: a call that was decided before may still be under way."""
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.state = L1State.UNREACHABLE
        keys, uri = self._world.keys, self._uri(fault)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, 0.0, self._world.plan.regions))

    def do_l1_moment(self, fault: Fault) -> None:
        keys, uri, regions = self._world.keys, self._uri(fault), self._world.plan.regions
        keys.turn(uri, L1State.DISABLED, 0.0, regions)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, 0.0, regions))

    def do_l1_disagree(self, fault: Fault) -> None:
        self._world.coverage.saw("endpoints that disagree")
        endpoint = self._world.keys.ask(self._uri(fault), self._region(fault))
        endpoint.state = L1State.DISABLED
        self._later(fault, lambda: setattr(endpoint, "state", L1State.ENABLED))

    def do_l1_flap(self, fault: Fault) -> None:
        uri = self._uri(fault)
        self._world.coverage.saw("a key that flaps")
        for number in range(6):
            state = L1State.DISABLED if number % 2 == 0 else L1State.ENABLED
            self._loop.after(number * 3.0, self._flap, uri, state)

    def _flap(self, uri: str, state: L1State) -> None:
        if not self._over:
            self._world.keys.turn(uri, state, 1.0, self._world.plan.regions)

    def do_l1_slow(self, fault: Fault) -> None:
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.slow_s = 3.0
            self._later(fault, lambda endpoint=endpoint: setattr(endpoint, "slow_s", 0.02))

    def do_l1_hang(self, fault: Fault) -> None:
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.hangs = True
            self._later(fault, lambda endpoint=endpoint: setattr(endpoint, "hangs", False))

    def do_l1_credentials(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if isinstance(victim, SimCore):
            self._world.coverage.saw("wrong credentials on one instance")
            victim.unsealer.wrong_credentials = True
            self._later(fault, lambda: setattr(victim.unsealer, "wrong_credentials", False))
