"""What a Core adds to its replica of the kill switch: the monitor of root keys, the coordinator."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.lift_compaction import LiftCompaction
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.replica.killswitch import KillSwitch

from kcm_core.assembly.ports import Ports
from kcm_core.keys.canaries import Canaries
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.monitor import KeyMonitor


@dataclass(frozen=True, slots=True)
class KillSwitchParts:
    """The parts that other parts, or the Core's start and end, need."""

    switch: KillSwitch
    automatic_holds: AutomaticHolds
    monitor: KeyMonitor
    results: Results
    regions: RegionSync
    kills: HoldCommands
    compaction: LiftCompaction


def replica(ports: Ports) -> KillSwitch:
    """Make this Core's replica of the kill switch."""
    return KillSwitch(
        ports.host,
        ports.replica_state,
        stream=ports.stream,
        hold_store=ports.hold_store,
        control_bus=ports.control_bus,
        purge=ports.purge,
    )


def kill_switch(ports: Ports, switch: KillSwitch) -> KillSwitchParts:
    """Make the key monitor and the coordinator, and connect them to the replica."""
    host, state = ports.host, ports.replica_state
    automatic_holds = AutomaticHolds(host, state, switch)
    monitor = key_monitor(ports, automatic_holds)
    results = Results(host, store=ports.results, control_bus=ports.control_bus, switch=switch)
    regions = RegionSync(
        host,
        state,
        control_bus=ports.control_bus,
        stream=ports.stream,
        switch=switch,
        timing=state.freshness.timing,
        result_of=results.offer,
    )
    switch.listen(regions.on_peer_lease, monitor.on_attestation)
    kills = HoldCommands(
        host,
        state,
        control_bus=ports.control_bus,
        switch=switch,
        regions=regions,
        timing=state.freshness.timing,
        results=results,
    )
    compaction = LiftCompaction(
        host,
        state,
        switch=switch,
        regions=regions,
        every_s=ports.limits.pages.every_s,
        keep_s=ports.limits.pages.keep_s,
        least=ports.limits.pages.least,
    )
    return KillSwitchParts(switch, automatic_holds, monitor, results, regions, kills, compaction)


def key_monitor(ports: Ports, holds: AutomaticHolds) -> KeyMonitor:
    """Make the monitor of root keys, which places and lifts ``holds``."""
    return KeyMonitor(
        ports.host,
        ports.replica_state,
        canaries=Canaries(ports.replica_state.registry, ports.store),
        unsealer=ports.unsealer,
        holds=holds,
        stream=ports.stream,
        unload=ports.unload,
        probes_per_s=ports.limits.probes_per_s,
    )
