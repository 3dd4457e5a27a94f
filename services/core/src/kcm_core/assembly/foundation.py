"""The parts on which all other parts of a Core depend: identity, connections, state and keys."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.audit.port import Emit
from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas.roster import Region

from kcm_core.config import CoreConfig
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.unsealer.port import UnsealerPort


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts on which all others depend."""

    config: CoreConfig
    me: InstanceContext
    region: Region
    unsealer: UnsealerPort
    clock: Clock
    randomness: KeyRandomness
    region_bus: Connection
    control_bus: Connection
    audit: AuditEmitter
    registry: Registry
    revocations: Revocations
    freshness: Freshness
    admission: Admission
    stream: ControlLog
    vault: Vault
    directory: FileKeyStore
    store: KeyStore

    @property
    def emit(self) -> Emit:
        """The port to the audit trail."""
        return self.audit.emit

    @property
    def host(self) -> Host:
        """What the process gives to every part."""
        return Host(self.me, self.clock, self.randomness, self.emit)

    @property
    def state(self) -> ReplicaState:
        """The state of the kill switch's replica."""
        return ReplicaState(self.registry, self.revocations, self.freshness, self.admission)

    def purge(self, tenant: str) -> int:
        """Overwrite a tenant's keys and end its admission; returns the number of keys."""
        self.admission.close(tenant)
        return self.vault.purge(tenant)

    def follow_registry(self) -> RegistryFeed:
        """Make the follower of the region's registry, which purges affected tenants."""
        return RegistryFeed(
            self.region_bus,
            self.me,
            self.revocations,
            self.purge,
            self.freshness.registry,
            self.clock,
        )


def foundation(
    config: CoreConfig,
    me: InstanceContext,
    unsealer: UnsealerPort,
    clock: Clock,
    randomness: KeyRandomness,
) -> Foundation:
    """Make the parts; raises ``ConfigError`` and ``SecretFileError``."""
    region = _region(me)
    region_bus = Connection(config.region_bus, me.name)
    audit = AuditEmitter(region_bus, me, clock)
    registry = Registry()
    revocations = Revocations(registry, me.region)
    freshness = Freshness(config.timing)
    directory = FileKeyStore(config.key_store)
    return Foundation(
        config=config,
        me=me,
        region=region,
        unsealer=unsealer,
        clock=clock,
        randomness=randomness,
        region_bus=region_bus,
        control_bus=Connection(config.control_bus, me.name),
        audit=audit,
        registry=registry,
        revocations=revocations,
        freshness=freshness,
        admission=Admission(freshness, revocations, registry, me.region),
        stream=ControlLog(region_bus, me.region, clock),
        vault=Vault(
            me.region, SealKey(region.seal_key_id, str(config.secrets.seal_key)), randomness
        ),
        directory=directory,
        store=KeyStore(region_bus, directory, me, audit.emit),
    )


def _region(me: InstanceContext) -> Region:
    for region in me.verifier.roster.regions:
        if region.region == me.region:
            return region
    raise ConfigError(f"the roster has no region {me.region}")
