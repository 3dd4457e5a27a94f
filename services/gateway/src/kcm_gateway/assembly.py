"""The composition of a Gateway: all parts over its ports, in production, in tests and elsewhere.

``EmbeddedGateway`` makes the ports of a running system. The rigs of the tests and the benchmarks
replace some of them, and so run the same composition: the engine asks the admission of the
replica's state, and the kill switch and the registry's follower purge the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.own_key import report_own_hold
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import PubSub, StreamLog

from kcm_gateway.config import EngineSettings
from kcm_gateway.core_client import CoreClient, Sleep, caller_of
from kcm_gateway.engine import Gateway
from kcm_gateway.envelope import EnvelopeOf, cached_envelope
from kcm_gateway.keys.blocks import Blocks


@dataclass(frozen=True, slots=True)
class Ports:
    """What a Gateway reaches outside itself, and the state with which it begins.

    ``region_bus`` takes requests to the region's Cores, ``buckets`` is the connection to the
    region's key-value buckets, and ``stream`` is the region's control stream. ``randomness``
    generates the data keys: it fills locked memory, unlike the host's. ``blocks`` makes that
    memory. A Gateway stores no holds: it learns them from the stream at each start.
    """

    host: Host
    replica_state: ReplicaState
    randomness: KeyRandomness
    region_bus: PubSub
    buckets: Connection
    control_bus: PubSub
    stream: StreamLog
    hold_store: HoldStore = field(default_factory=NullHoldStore)
    blocks: Blocks = field(default_factory=Blocks)
    envelope_of: EnvelopeOf = cached_envelope
    sleep: Sleep = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one Gateway."""

    engine: Gateway
    feed: RegistryFollower
    switch: KillSwitch


def assemble(ports: Ports, settings: EngineSettings, switch: KillSwitch | None = None) -> Parts:
    """Make every part once and connect them; nothing runs yet.

    ``switch`` is a replica that was made before of the same ports; tests bring one that they watch.
    """

    async def fetch(tenant: str) -> None:
        await feed.fetch("tenant", tenant)

    host = ports.host
    held = HeldKeys(ports.replica_state.revocations, "instance")
    report_own_hold(held, host.me)
    core = CoreClient(
        ports.region_bus.request,
        caller_of(host.me, held),
        host.clock,
        ports.randomness,
        settings.core_timeout_s,
        ports.sleep,
    )
    engine = Gateway(
        host,
        ports.replica_state.admission,
        core=core,
        randomness=ports.randomness,
        settings=settings,
        fetch=fetch,
        blocks=ports.blocks,
        envelope_of=ports.envelope_of,
    )
    feed = _feed(ports, engine.purge)
    switch = switch or KillSwitch(
        host,
        ports.replica_state,
        stream=ports.stream,
        hold_store=ports.hold_store,
        control_bus=ports.control_bus,
        purge=engine.purge,
    )
    switch.on_registry(feed.read_again)
    return Parts(engine, feed, switch)


def _feed(ports: Ports, purge: Callable[[str], int]) -> RegistryFollower:
    """Make the follower of the region's registry."""
    state = ports.replica_state
    return RegistryFollower(
        ports.buckets,
        ports.host.me,
        state.revocations,
        purge,
        state.freshness.registry,
        ports.host.clock,
    )
