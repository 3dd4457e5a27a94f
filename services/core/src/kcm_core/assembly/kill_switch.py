"""The kill switch of a Core: its replica, the monitor of root keys, and the coordinator."""

from __future__ import annotations

import random
from dataclasses import dataclass

from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.lift_compaction import LiftCompaction
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.replica.hold_store import FileHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch

from kcm_core.assembly.foundation import Foundation
from kcm_core.keys.canaries import Canaries
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.monitor import KeyMonitor


@dataclass(frozen=True, slots=True)
class KillSwitchParts:
    """The parts that other parts, or the Core's start and end, need."""

    switch: KillSwitch
    monitor: KeyMonitor
    results: Results
    regions: RegionSync
    kills: HoldCommands
    compaction: LiftCompaction


def kill_switch(base: Foundation) -> KillSwitchParts:
    """Make the replica, the key monitor and the coordinator, and connect them."""
    switch = _replica(base)
    monitor = _monitor(base, switch)
    results = Results(
        base.host,
        store=ResultBucket(base.region_bus),
        control_bus=base.control_bus,
        switch=switch,
    )
    regions = _region_sync(base, switch, results)
    switch.listen(regions.on_peer_lease, monitor.on_attestation)
    kills = HoldCommands(
        base.host,
        base.state,
        control_bus=base.control_bus,
        switch=switch,
        regions=regions,
        timing=base.config.timing,
        results=results,
    )
    compaction = LiftCompaction(
        base.host,
        base.state,
        since=switch.stored_since,
        pages=switch.lifts,
        regions=regions,
    )
    return KillSwitchParts(switch, monitor, results, regions, kills, compaction)


def _replica(base: Foundation) -> KillSwitch:
    return KillSwitch(
        base.host,
        base.state,
        stream=base.stream,
        hold_store=FileHoldStore(base.config.state_dir / "holds"),
        control_bus=base.control_bus,
        purge=base.purge,
    )


def _monitor(base: Foundation, switch: KillSwitch) -> KeyMonitor:
    holds = AutomaticHolds(
        membership=base.me,
        revocations=base.revocations,
        switch=switch,
        settle_s=base.config.timing.settle_s,
        clock=base.clock,
        randomness=base.randomness,
    )
    return KeyMonitor(
        membership=base.me,
        revocations=base.revocations,
        freshness=base.freshness,
        admission=base.admission,
        canaries=Canaries(base.registry, base.store),
        unsealer=base.unsealer,
        holds=holds,
        stream=base.stream,
        purge=base.purge,
        emit=base.emit,
        clock=base.clock,
        chance=random.random,
        probes_per_s=base.config.probes_per_s,
    )


def _region_sync(base: Foundation, switch: KillSwitch, results: Results) -> RegionSync:
    return RegionSync(
        base.host,
        base.state,
        control_bus=base.control_bus,
        stream=base.stream,
        switch=switch,
        timing=base.config.timing,
        result_of=results.offer,
    )
