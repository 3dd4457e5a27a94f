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
        membership=base.me,
        store=ResultBucket(base.region_bus),
        control_bus=base.control_bus,
        switch=switch,
        clock=base.clock,
    )
    regions = _region_sync(base, switch, results)
    switch.listen(regions.on_peer_lease, monitor.on_attestation)
    kills = HoldCommands(
        membership=base.me,
        control_bus=base.control_bus,
        registry=base.registry,
        revocations=base.revocations,
        switch=switch,
        regions=regions,
        timing=base.config.timing,
        clock=base.clock,
        emit=base.emit,
        results=results,
    )
    compaction = LiftCompaction(
        membership=base.me,
        revocations=base.revocations,
        since=switch.stored_since,
        pages=switch.lifts,
        regions=regions,
        clock=base.clock,
        chance=random.random,
        emit=base.emit,
    )
    return KillSwitchParts(switch, monitor, results, regions, kills, compaction)


def _replica(base: Foundation) -> KillSwitch:
    return KillSwitch(
        membership=base.me,
        stream=base.stream,
        memory=FileHoldStore(base.config.state_dir / "holds"),
        control_bus=base.control_bus,
        revocations=base.revocations,
        freshness=base.freshness,
        purge=base.purge,
        emit=base.emit,
        clock=base.clock,
        randomness=base.randomness,
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
        membership=base.me,
        control_bus=base.control_bus,
        stream=base.stream,
        revocations=base.revocations,
        switch=switch,
        timing=base.config.timing,
        clock=base.clock,
        randomness=base.randomness,
        chance=random.random,
        emit=base.emit,
        result_of=results.offer,
    )
