"""The parts of a Core that keep the region's registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kcm_killswitch.replica.killswitch import KillSwitch

from kcm_core.assembly.ports import Ports
from kcm_core.registry.baseline import RegistryBaseline
from kcm_core.registry.comparison import Comparison
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.registry.recovery import RegistryRecovery


@dataclass(frozen=True, slots=True)
class RegistryParts:
    """The parts that other parts, or the Core's start and end, need."""

    baseline: RegistryBaseline
    keeper: RegistryKeeper
    recovery: RegistryRecovery
    comparison: Comparison


def registry_parts(
    ports: Ports, switch: KillSwitch, shown: Callable[[], Awaitable[object]] | None = None
) -> RegistryParts:
    """Make the parts that keep the region's registry, and connect them to the kill switch.

    ``shown`` returns after this Core's lease entry shows the registry as it is now; without it, the
    kill switch renews the entry.
    """
    host, lease = ports.host, ports.replica_state.freshness.registry
    baseline = RegistryBaseline(
        floors=ports.floors, registry=ports.replica_state.registry, lease=lease, emit=host.emit
    )
    comparison = Comparison(lease, host.clock)
    keeper = RegistryKeeper(
        host,
        ports.replica_state.registry,
        connection=ports.buckets,
        feed=ports.feed,
        second_store=ports.second_store,
        baseline=baseline,
        settled=shown or switch.renew,
        compared=comparison.compared,
    )
    comparison.keeper = keeper
    switch.on_registry(keeper.compare)
    recovery = RegistryRecovery(
        host, bus=ports.region_bus, baseline=baseline, compare=keeper.compare, empty=keeper.empty
    )
    return RegistryParts(baseline, keeper, recovery, comparison)
