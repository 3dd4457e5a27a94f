"""A running Core: its parts, in the order in which they may start.

Nothing is served before the whole control stream was replayed, so a Core that was down while a kill
was placed knows of it before it opens anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from kcm_keymem.arena import Arena, secure_memory
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.coordinator.evidence_export import EvidenceExport
from kcm_killswitch.coordinator.hold_commands import Kills
from kcm_killswitch.coordinator.lift_compaction import Compaction
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.hold_store import FileHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.audit.stream import AuditStream
from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_runtime.files.secret_file import read_secret
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import CORE_STREAMS, await_streams
from kcm_runtime.nats.request_server import Service
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas import subjects
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import decode
from kcm_schemas.roster import Region, Role
from kcm_schemas.version import VERSION
from kcm_sealing.hpke import SECRET_SIZE, HpkePrivate
from kcm_trust.verify import Untrusted

from kcm_core.api.admin import Admin
from kcm_core.api.registry_adoption import RegistryAdoption
from kcm_core.api.roster_requests import RosterRequests
from kcm_core.api.sessions import Sessions
from kcm_core.api.tenant_list import TenantList
from kcm_core.api.wrap import Wrapping
from kcm_core.config import CoreConfig
from kcm_core.keys.canaries import Canaries
from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.loader import Opener
from kcm_core.keys.root_rewrap import RootRewrapper
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.registry.floors import Floors
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.registry.memory import RegistryMemory
from kcm_core.registry.recovery import RegistryRecovery
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.hints.supervisor import Listeners
from kcm_core.root_keys.link_validation import LinkValidator
from kcm_core.root_keys.monitor import KeyMonitor
from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Policy
from kcm_core.unsealer.port import UnsealerPort

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.1
"""Seconds after the end of another Core's lease at which the registry is compared again."""


class Core:
    """The vault on the bus."""

    def __init__(
        self,
        config: CoreConfig,
        membership: InstanceContext,
        unsealer: UnsealerPort,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        self._me: Final = membership
        region = _region(membership)
        self._private: Final = _hpke_private(config, region)
        name = membership.name
        self._region_bus: Final = Connection(config.region_bus, name)
        self._control_bus: Final = Connection(config.control_bus, name)
        self._audit: Final = AuditEmitter(self._region_bus, membership, clock)
        registry = Registry()
        revocations = Revocations(registry, membership.region)
        self._clock: Final = clock
        self._freshness: Final = Freshness(config.timing)
        freshness = self._freshness
        self._compare_again: asyncio.TimerHandle | None = None
        admission = Admission(freshness, revocations, registry, membership.region)
        stream = ControlLog(self._region_bus, membership.region, clock)
        vault = Vault(
            membership.region, SealKey(region.seal_key_id, str(config.secrets.seal_key)), randomness
        )
        directory = FileKeyStore(config.key_store)
        emit = self._audit.emit
        self._store: Final = KeyStore(self._region_bus, directory, membership, emit)

        def purge(tenant: str) -> int:
            admission.close(tenant)
            return vault.purge(tenant)

        self._purge: Final = purge
        self._feed: Final = RegistryFeed(
            self._region_bus, membership, revocations, purge, freshness.registry, clock
        )
        self._switch: Final = KillSwitch(
            membership=membership,
            stream=stream,
            memory=FileHoldStore(config.state_dir / "holds"),
            control_bus=self._control_bus,
            revocations=revocations,
            freshness=freshness,
            purge=purge,
            emit=emit,
            clock=clock,
            randomness=randomness,
        )
        holds = AutomaticHolds(
            membership=membership,
            revocations=revocations,
            switch=self._switch,
            settle_s=config.timing.settle_s,
            clock=clock,
            randomness=randomness,
        )
        self._watch: Final = KeyMonitor(
            membership=membership,
            revocations=revocations,
            freshness=freshness,
            admission=admission,
            canaries=Canaries(registry, self._store),
            unsealer=unsealer,
            holds=holds,
            stream=stream,
            seal=purge,
            emit=emit,
            clock=clock,
            chance=random.random,
            probes_per_s=config.probes_per_s,
        )
        opener = Opener(
            membership=membership,
            admission=admission,
            watch=self._watch,
            seal=purge,
            clock=clock,
            registry=registry,
            revocations=revocations,
            store=self._store,
            vault=vault,
            unsealer=unsealer,
            emit=emit,
            deadline_s=config.l1_deadline_s,
        )
        self._sessions: Final = Sessions(
            membership.region, region.hpke_key_id, self._private, membership.rosters
        )
        self._wrapping: Final = Wrapping(
            membership=membership,
            admission=admission,
            opener=opener,
            vault=vault,
            sessions=self._sessions,
            emit=emit,
            clock=clock,
            randomness=randomness,
            incarnations=self._switch.record.incarnations,
            lease_ms=config.lease_ms,
            fetch=self._feed.fetch_service,
            may_record=lambda: self._audit.has_room,
            refusal=lambda: self._audit.refusal,
        )
        results = Results(
            membership=membership,
            store=ResultBucket(self._region_bus),
            control_bus=self._control_bus,
            switch=self._switch,
            clock=clock,
        )
        self._regions: Final = RegionSync(
            membership=membership,
            control_bus=self._control_bus,
            stream=stream,
            revocations=revocations,
            switch=self._switch,
            timing=config.timing,
            clock=clock,
            randomness=randomness,
            chance=random.random,
            emit=emit,
            result_of=results.offer,
        )
        self._switch.listen(self._regions.on_peer_lease, self._watch.on_attestation)
        self._trimmer: Final = Trimmer(
            membership=membership,
            control=stream,
            store=AuditStream(self._region_bus, membership.region, clock),
            memory=TrimFiles(config.state_dir),
            policy=_trim_policy(config),
            emit=emit,
            clock=clock,
        )
        self._listeners: Final = Listeners(
            config.hints, config.unsealer_environment, self._watch.hinted
        )
        self._kills: Final = Kills(
            membership=membership,
            control_bus=self._control_bus,
            registry=registry,
            revocations=revocations,
            switch=self._switch,
            regions=self._regions,
            timing=config.timing,
            clock=clock,
            emit=emit,
            results=results,
        )
        maker = KeyCreator(
            membership=membership,
            revocations=revocations,
            store=self._store,
            vault=vault,
            opener=opener,
            unsealer=unsealer,
            seal_key_id=region.seal_key_id,
            emit=emit,
            randomness=randomness,
            deadline_s=config.l1_deadline_s,
        )
        relinker = RootRewrapper(
            membership=membership,
            registry=registry,
            revocations=revocations,
            store=self._store,
            vault=vault,
            unsealer=unsealer,
            emit=emit,
            randomness=randomness,
            deadline_s=config.l1_deadline_s,
        )
        memory = RegistryMemory(
            floors=Floors(config.state_dir / "registry-floors"),
            registry=registry,
            lease=freshness.registry,
            emit=emit,
        )
        self._keeper: Final = RegistryKeeper(
            membership=membership,
            connection=self._region_bus,
            feed=self._feed,
            registry=registry,
            directory=directory,
            memory=memory,
            settled=self._switch.record.renew,
            compared=self._compared_registry,
            emit=emit,
        )
        self._admin: Final = Admin(
            membership=membership,
            feed=self._feed,
            registry=registry,
            listing=TenantList(
                region=membership.region,
                core=membership.name,
                registry=registry,
                revocations=revocations,
                feed=self._feed,
                store=self._store,
                vault=vault,
                clock=clock,
            ),
            maker=maker,
            linker=LinkValidator(
                region=membership.region,
                unsealer=unsealer,
                clock=clock,
                randomness=randomness,
                deadline_s=config.l1_deadline_s,
            ),
            relinker=relinker,
            keeper=self._keeper,
            memory=memory,
            kills=self._kills,
            emit=emit,
            clock=clock,
        )
        self._joining: Final = RegistryRecovery(
            membership=membership,
            bus=self._region_bus,
            memory=memory,
            compare=self._keeper.compare,
            empty=self._keeper.empty,
            clock=clock,
            randomness=randomness,
            emit=emit,
        )
        self._admin.serve_named(
            "registry",
            RegistryAdoption(
                membership=membership,
                registry=registry,
                memory=memory,
                joining=self._joining,
                compare=self._keeper.compare,
            ).verbs,
        )
        self._switch.on_registry(self._keeper.compare)
        rostering = RosterRequests(
            membership=membership,
            rosters=self._switch.rosters,
            feed=self._feed,
            registry=registry,
            revocations=revocations,
            lift_pages=self._switch.lifts.pages,
            store=self._store,
            clock=clock,
        )
        for noun, verbs in (
            ("roster", rostering.verbs),
            ("hold", EvidenceExport(self._kills, results, revocations, self._switch).verbs),
            ("key", {"status": self._key_use}),
        ):
            self._admin.serve(noun, verbs)
        self._compaction: Final = Compaction(
            membership=membership,
            revocations=revocations,
            since=self._switch.stored_since,
            pages=self._switch.lifts,
            regions=self._regions,
            clock=clock,
            chance=random.random,
            emit=emit,
        )
        self._vault: Final = vault
        self._leaving: asyncio.Task[None] | None = None
        membership.rosters.listen(self._judge_again)
        self._service: Final = Service(
            self._region_bus,
            clock,
            name="kcm-core",
            service_id=membership.incarnation.hex(),
            version=VERSION,
            metadata={"instance": name, "region": membership.region},
        )

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._region_bus.start()
        await self._control_bus.start()
        await await_streams(self._region_bus, self._me.region, CORE_STREAMS)
        await self._audit.start()
        await self._feed.start()
        await self._keeper.start()
        await self._switch.start()
        await self._joining.start()
        await self._kills.start()
        await self._regions.start()
        self._watch.start()
        self._trimmer.start()
        self._compaction.start()
        self._listeners.start()
        region = self._me.region
        await self._service.add(
            "keys", subjects.core_all(region), self._wrapping.handle, f"core-{region}"
        )
        await self._service.add(
            "admin", subjects.admin_all(region), self._admin.handle, f"core-{region}", urgent=True
        )
        own = subjects.admin_all_at(region, self._me.name)
        await self._service.add("admin-here", own, self._admin.handle, "", urgent=True)
        await self._service.announce()
        state, lacks = secure_memory()
        if lacks:
            log.warning("secure memory: %s (%s)", state, ", ".join(lacks))

    async def _key_use(self, request: AdminRequest) -> KeyUse:
        """Show how many customers' keys this Core has in use: each Core has its own count."""
        decode(Empty, request.payload)
        return self._watch.use()

    def _judge_again(self, names: frozenset[str]) -> None:
        """Open keys anew, or not at all, that a Core has wrapped whose entry is another one."""
        if not self._me.acts and self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
        if any(map(self._may_be_core, names)):
            for tenant in self._vault.open_tenants:
                self._purge(tenant)

    def _compared_registry(self) -> None:
        """The registry has everything that the second store has; again once others have gone.

        A Core that knows something else is heard again while it lives, and so compared with. Of one
        that died with it nothing comes any more, an incarnation before this one for example.
        """
        again_s = self._freshness.registry.compared(self._clock.elapsed())
        if self._compare_again is not None:
            self._compare_again.cancel()
            self._compare_again = None
        if again_s is not None:
            self._compare_again = asyncio.get_running_loop().call_later(
                again_s + AGAIN_S, self._keeper.compare
            )

    async def _leave(self) -> None:
        """Leave the questions of callers and of other regions to the Cores that act."""
        await self._control_bus.unsubscribe(subjects.pulls(self._me.region))
        await self._region_bus.unsubscribe(subjects.registry_question(self._me.region))
        await self._service.drain()

    def _may_be_core(self, name: str) -> bool:
        """Whether somebody is a Core of this region, or may have been one: they are gone."""
        verifier = self._me.verifier
        if any(name == one.operator for one in verifier.roster.operators):
            return False
        try:
            entry = verifier.instance(name)
        except Untrusted:
            return True
        return (entry.role, entry.region) == (Role.CORE, self._me.region)

    async def close(self) -> None:
        """Finish what is in flight, wipe every key, and go off the record."""
        await self._service.drain()
        await self._listeners.close()
        self._watch.close()
        self._compaction.close()
        await self._trimmer.close()
        for tenant in self._vault.open_tenants:
            self._purge(tenant)
        self._vault.close()
        self._sessions.close()
        self._kills.close()
        self._private.close()
        await self._regions.close()
        if self._compare_again is not None:
            self._compare_again.cancel()
        self._joining.close()
        self._keeper.close()
        self._store.close()
        await self._switch.close()
        await self._feed.close()
        self._admin.close()
        self._wrapping.close()
        await self._audit.close()
        await self._control_bus.close()
        await self._region_bus.close()


def _region(membership: InstanceContext) -> Region:
    for region in membership.verifier.roster.regions:
        if region.region == membership.region:
            return region
    raise ConfigError(f"the roster has no region {membership.region}")


def _trim_policy(config: CoreConfig) -> Policy:
    return Policy(
        quorum=config.audit.quorum,
        keep_ms=int(config.audit.keep_s * 1000),
        keep_full_ms=int(config.audit.keep_full_s * 1000),
    )


def _hpke_private(config: CoreConfig, region: Region) -> HpkePrivate:
    arena = Arena()
    try:
        with arena.use() as view:
            read_secret(str(config.secrets.hpke_key), view[:SECRET_SIZE])
            private = HpkePrivate(view[:SECRET_SIZE])
    finally:
        arena.purge()
    if private.public_bytes != region.hpke_public:
        raise ConfigError("the HPKE key is not the one that the roster has for this region")
    return private
