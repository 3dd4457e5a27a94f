"""The ports of a Core in production: its broker, its disk, its keys and its audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from kcm_keymem.arena import Arena
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_store import FileHoldStore
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas.roster import Region
from kcm_sessions.session_keys import SessionKeys

from kcm_core.assembly.ports import Limits, Ports
from kcm_core.config import CoreConfig
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.registry.floors import Floors
from kcm_core.unsealer.port import UnsealerPort


@dataclass(frozen=True, slots=True)
class Production:
    """The ports, and what only the Core's start and end use."""

    ports: Ports
    audit: AuditEmitter
    region_bus: Connection
    control_bus: Connection
    vault_bus: Connection


def production(
    config: CoreConfig,
    me: InstanceContext,
    unsealer: UnsealerPort,
    clock: Clock,
    randomness: KeyRandomness,
) -> Production:
    """Make the ports; raises ``ConfigError`` and ``SecretFileError``."""
    region = _region(me)
    region_bus = Connection(config.region_bus, me.name, bus="region_bus")
    control_bus = Connection(config.control_bus, me.name, bus="control_bus")
    # With the same state of the streams: audit and monitoring report a bucket of keys that is full.
    vault_bus = Connection(config.vault_bus, me.name, region_bus.stores, bus="vault_bus")
    audit = AuditEmitter(region_bus, me, clock)
    host = Host(me, clock, randomness, audit.emit)
    state = ReplicaState.empty(me.region, config.timing, own_key=me.key_target)
    seal_key = SealKey(region.seal_key_id, str(config.secrets.seal_key))
    vault = Vault(me.region, seal_key, randomness)
    second_store = FileKeyStore(config.key_store)
    stream = ControlLog(region_bus, me.region, clock)

    overwrite = partial(overwrite_keys, state.admission, vault)
    ports = Ports(
        host=host,
        replica_state=state,
        region=region,
        region_bus=region_bus,
        buckets=region_bus,
        control_bus=control_bus,
        stream=stream,
        hold_store=FileHoldStore(config.state_dir / "holds"),
        results=ResultBucket(region_bus),
        feed=RegistryFollower(
            region_bus, me, state.revocations, overwrite, state.freshness.registry, clock
        ),
        floors=Floors(config.state_dir / "registry-floors"),
        second_store=second_store,
        store=KeyStore(host, vault_bus, second_store),
        vault=vault,
        session_keys=SessionKeys(host, randomness, Arena),
        unsealer=unsealer,
        purge=overwrite,
        unload=overwrite,
        audit_room=audit,
        limits=Limits(config.lease_ms, config.l1_deadline_s, config.probes_per_s),
    )
    return Production(ports, audit, region_bus, control_bus, vault_bus)


def overwrite_keys(admission: Admission, vault: Vault, tenant: str) -> int:
    """End a tenant's admission and overwrite its keys; returns the number of keys."""
    admission.close(tenant)
    return vault.purge(tenant)


def _region(me: InstanceContext) -> Region:
    for region in me.verifier.roster.regions:
        if region.region == me.region:
            return region
    raise ConfigError(f"the roster has no region {me.region}")
