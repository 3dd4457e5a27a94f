"""A Core without processes: its real parts over a broker, a directory and an L1 in memory."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Final

from kcm_core.api.admin import Admin
from kcm_core.api.registry_adoption import RegistryAdoption
from kcm_core.api.roster_requests import RosterRequests
from kcm_core.api.sessions import Sessions
from kcm_core.api.tenant_list import TenantList
from kcm_core.api.wrap import WrapApi
from kcm_core.keys.canaries import Canaries
from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.loader import KeyLoader
from kcm_core.keys.root_rewrap import RootRewrapper
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.registry.floors import Floors
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.registry.memory import RegistryMemory
from kcm_core.registry.recovery import RegistryRecovery
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.link_validation import LinkValidator
from kcm_core.root_keys.monitor import KeyMonitor
from kcm_gateway.core_client import CoreClient
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.hold_applier import to_record
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.follower import RosterFeed
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Hold, Lease
from kcm_schemas.data import Failure
from kcm_schemas.registry import Accepted, Link, RegistryEntry, Service, Tenant
from kcm_schemas.signed import Kind, read_signed
from kcm_sealing.hpke import SECRET_SIZE, HpkePrivate
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import ROOT
from kcm_trust.verify import Verifier

from tests.fakes.bus import Bus, Clock
from tests.fakes.knowing import knowing
from tests.fakes.ports import Wire
from tests.fakes.unsealer import FakeUnsealer
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

URI: Final = "softkey:/keys/acme"
LINK: Final = Link(link="acme-root", revision=1, uri=URI, model="byok")
TENANT: Final = Tenant(
    tenant="acme", revision=1, link="acme-root", regions=["eu", "us"], region_quorum="all"
)
SERVICE: Final = Service(tenant="acme", service="crm", revision=1)
BLOB: Final = 72
KEY: Final = 32

PRIVATE: Final = {
    region: HpkePrivate(memoryview(bytearray(bytes([number]) * SECRET_SIZE)))
    for number, region in enumerate(("eu", "us"), start=1)
}
ROSTER: Final = trust_rig.roster().model_copy(
    update={
        "regions": [
            region.model_copy(update={"hpke_public": PRIVATE[region.region].public_bytes})
            for region in trust_rig.roster().regions
        ]
    }
)
VERIFIER: Final = Verifier(ROSTER)
SIGNED_ROSTER: Final = encode(identity(ROOT).sign(Kind.ROSTER, ROSTER))
_incarnations: Final = itertools.count(1)


def membership(name: str) -> InstanceContext:
    return InstanceContext(
        identity(name),
        VERIFIER.instance(name),
        Rosters(VERIFIER, raw=SIGNED_ROSTER, root_public=identity(ROOT).public),
        next(_incarnations).to_bytes(16, "big"),
    )


def signed(kind: Kind, message: Any, signer: str = "admin") -> bytes:
    return encode(identity(signer).sign(kind, message))


class World:
    """What Cores of a region share, and what an attacker has: broker, directory, L1, seal key."""

    def __init__(self, path: Path, region: str = "eu") -> None:
        self.region = region
        self.bus = Bus()
        self.wire = Wire()
        self.directory = path / region
        self.directory.mkdir()
        self.state = path / f"state-{region}"
        self.seal_key = path / f"seal-{region}"
        self.seal_key.write_bytes(os.urandom(KEY))
        self.seal_key.chmod(0o600)
        self.unsealer = FakeUnsealer()
        self.clock = Clock(1_000_000.0)

    def core(self, name: str = "core-eu", **changes: Any) -> Core:
        return Core(self, name, **changes)


def entry(raw: bytes, who: str = "core-eu", region: str = "eu") -> bytes:
    """A registry entry as it is stored, accepted by a Core."""
    word = Accepted(statement=statement_digest(read_signed(raw)), region=region, roster=3)
    return encode(RegistryEntry(statement=raw, accepted=signed(Kind.ACCEPTED, word, who)))


def lease_of(me: InstanceContext) -> Lease:
    """An incarnation's lease entry."""
    return Lease(
        instance=me.name,
        incarnation=me.incarnation,
        role=me.role,
        region=me.region,
        nonce=trust_rig.ID,
        first=0,
        lease_ms=10_000,
        holds=bytes(32),
        registry=[bytes(16)] * 16,
        roster=1,
        ended=False,
    )


async def _settled() -> None:
    """The lease entry says it at once."""


class Switch:
    """The kill switch of one Core: what it learns takes effect, and is durable, at once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.told: list[HoldState] = []

    def verify(self, raw: bytes) -> HoldState:
        return to_record(self._core.me.verifier.hold_or_lift(raw))

    def issue(self, record: HoldState) -> None:
        for tenant in self._core.revocations.learn(record).purge:
            self._core.purge(tenant)

    async def broadcast(self, record: HoldState) -> None:
        self.told.append(record)

    def durable_at(self, hold_id: bytes) -> int:
        return 1 if self._core.revocations.holds.get(hold_id) else 0


class Attestations:
    """A control stream that takes whatever is put."""

    async def put(self, subject: str, body: bytes) -> int:
        return 1


class Core:
    """One incarnation."""

    def __init__(
        self, world: World, name: str, *, seal_key: Path | None = None, remembers: bool = True
    ) -> None:
        """``remembers``: its disk has what it wrote there, or that there was nothing."""
        self.world = world
        self.me = membership(name)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.comparisons = 0
        """How often the registry had everything that the second store has."""
        self.may_record = True
        self.registry = Registry()
        self.revocations = Revocations(self.registry, self.me.region)
        self.freshness = knowing(world.clock.elapsed(), "eu", "us")
        self.admission = Admission(self.freshness, self.revocations, self.registry, self.me.region)
        self.incarnations = Incarnations()
        randomness = SystemKeyRandomness()
        seal = SealKey(trust_rig.ID, str(seal_key or world.seal_key))
        self.vault = Vault(self.me.region, seal, randomness)
        self.store = KeyStore(world.bus, FileKeyStore(world.directory), self.me, self._emit)  # type: ignore[arg-type]
        self.switch = Switch(self)
        self.holds = AutomaticHolds(
            membership=self.me, revocations=self.revocations, switch=self.switch,  # type: ignore[arg-type]
            settle_s=60.0, clock=world.clock, randomness=randomness,
        )  # fmt: skip
        self.watch = KeyMonitor(
            membership=self.me, revocations=self.revocations, freshness=self.freshness,
            admission=self.admission, canaries=Canaries(self.registry, self.store),
            unsealer=world.unsealer, holds=self.holds, stream=Attestations(), purge=self.purge,  # type: ignore[arg-type]
            emit=self._emit, clock=world.clock, chance=lambda: 0.5,
        )  # fmt: skip
        common: Any = {
            "membership": self.me,
            "revocations": self.revocations,
            "vault": self.vault,
            "emit": self._emit,
        }
        self.loader = KeyLoader(
            **common, registry=self.registry, store=self.store, unsealer=world.unsealer,
            admission=self.admission, watch=self.watch, purge=self.purge, clock=world.clock,
            deadline_s=5.0,
        )  # fmt: skip
        self.maker = KeyCreator(
            **common, store=self.store, loader=self.loader, unsealer=world.unsealer,
            seal_key_id=trust_rig.ID, randomness=randomness, deadline_s=5.0,
        )  # fmt: skip
        self.sessions = Sessions(
            self.me.region, trust_rig.ID, PRIVATE[self.me.region], self.me.rosters
        )
        feed = RegistryFeed(
            world.bus, self.me, self.revocations, self.purge,  # type: ignore[arg-type]
            self.freshness.registry, world.clock,
        )  # fmt: skip
        self.wrapping = WrapApi(
            fetch=feed.fetch_service,
            membership=self.me,
            vault=self.vault,
            emit=self._emit,
            admission=self.admission,
            incarnations=self.incarnations,
            loader=self.loader,
            sessions=self.sessions,
            clock=world.clock,
            randomness=randomness,
            lease_ms=10_000,
            may_record=lambda: self.may_record,
        )
        floors = Floors(world.state / f"{name}-floors")
        if remembers and floors.fresh:
            floors.begin([])
            floors.use()
        self.memory = RegistryMemory(
            floors=floors, registry=self.registry, lease=self.freshness.registry, emit=self._emit
        )
        self.keeper = RegistryKeeper(
            membership=self.me, connection=world.bus, feed=feed, registry=self.registry,  # type: ignore[arg-type]
            directory=FileKeyStore(world.directory), memory=self.memory,
            settled=_settled, compared=self._note_comparison, emit=self._emit,
        )  # fmt: skip
        self.feed = feed
        nobody: Any = None
        self.relinker = RootRewrapper(
            **common, registry=self.registry, store=self.store, unsealer=world.unsealer,
            randomness=randomness, deadline_s=5.0,
        )  # fmt: skip
        self.linker = LinkValidator(
            region=self.me.region, unsealer=world.unsealer, clock=world.clock,
            randomness=randomness, deadline_s=5.0,
        )  # fmt: skip
        self.listing = TenantList(
            region=self.me.region, core=self.me.name, registry=self.registry,
            revocations=self.revocations, feed=feed, store=self.store, vault=self.vault,
            clock=world.clock,
        )  # fmt: skip
        self.rosters = RosterFeed(
            self.me, ControlLog(world.bus, self.me.region, world.clock),  # type: ignore[arg-type]
            RejectionLog("control", self._emit), self._emit, randomness,
            world.clock,
        )  # fmt: skip
        rostering = RosterRequests(
            membership=self.me, rosters=self.rosters, feed=feed, registry=self.registry,
            revocations=self.revocations, lift_pages=(), store=self.store, clock=world.clock,
        )  # fmt: skip
        self.admin = Admin(
            membership=self.me, emit=self._emit, keeper=self.keeper, feed=feed, memory=self.memory,  # type: ignore[arg-type]
            registry=self.registry, listing=self.listing,
            maker=self.maker, linker=self.linker, relinker=self.relinker, kills=nobody,
            clock=world.clock,
        )  # fmt: skip
        self.admin.serve("roster", rostering.verbs)
        self.region_bus = world.wire.join(name)
        self.joining = RegistryRecovery(
            membership=self.me, bus=self.region_bus, memory=self.memory,
            compare=self.keeper.compare, empty=self.keeper.empty, clock=world.clock,
            randomness=randomness, emit=self._emit,
        )  # fmt: skip
        adopting = RegistryAdoption(
            membership=self.me, registry=self.registry, memory=self.memory, joining=self.joining,
            compare=self.keeper.compare,
        )  # fmt: skip
        self.admin.serve_named("registry", adopting.verbs)

    def _note_comparison(self) -> None:
        self.comparisons += 1

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def learn(self, *records: Tenant | Link | Service) -> None:
        for record in records or (LINK, TENANT, SERVICE):
            for tenant in self.revocations.register(record).purge:
                self.purge(tenant)

    async def made(self) -> Core:
        """With the tenant's root and the service's key, closed."""
        self.learn()
        await self.maker.root(TENANT, LINK)
        await self.maker.service(SERVICE)
        self.purge("acme")
        return self

    def purge(self, tenant: str) -> int:
        """As the service puts it together."""
        self.admission.close(tenant)
        return self.vault.purge(tenant)

    def kill(self, hold: Hold | None = None) -> None:
        """As the kill switch does: learn, then purge, with nothing in between."""
        one = hold or trust_rig.hold()
        for tenant in self.revocations.learn(HoldState(one, b"raw")).purge:
            self.purge(tenant)

    def lift(self, hold: Hold | None = None) -> None:
        one = hold or trust_rig.hold()
        self.revocations.learn(HoldState(one, b"raw", lift=b"lift"))

    async def answer(self, subject: str, body: bytes, timeout_s: float = 1.0) -> bytes:
        """As the bus serves it."""
        try:
            return await self.wrapping.handle(subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))

    def client(self, name: str = "gw-eu", ask: Any = None, clock: Any = None) -> CoreClient:
        """A caller whose incarnation this Core has on record."""
        me = membership(name)
        self.incarnations.take(lease_of(me), 1, self.world.clock.elapsed())
        clock = clock or self.world.clock
        return CoreClient(
            ask or self.answer, me, clock, SystemKeyRandomness(), 2.0, sleep=clock.sleep
        )
