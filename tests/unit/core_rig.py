"""A Core without processes: its real parts over a broker, a directory and an L1 in memory."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Final

from kcm_core.assembly import Limits, Ports, assemble
from kcm_core.assembly.production import overwrite_keys
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.registry.floors import Floors
from kcm_gateway.core_client import CoreClient
from kcm_keymem.arena import Arena
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.replica.hold_applier import to_state
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.follower import RosterFollower
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Hold, Lease
from kcm_schemas.data import Failure
from kcm_schemas.registry import Accepted, Link, RegistryEntry, Service, Tenant
from kcm_schemas.signed import Kind, read_signed
from kcm_sessions.session_keys import SessionKeys
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import ROOT
from kcm_trust.verify import Verifier

from tests.fakes.bus import Bus, Clock
from tests.fakes.holding import unheld
from tests.fakes.knowing import primed
from tests.fakes.unsealer import FakeUnsealer
from tests.fakes.wire import Wire
from tests.unit import trust_rig
from tests.unit.app_rig import app
from tests.vectors.families.messages import identity

URI: Final = "softkey:/keys/acme"
LINK: Final = Link(link="acme-root", revision=1, uri=URI, model="byok")
TENANT: Final = Tenant(
    tenant="acme", revision=1, link="acme-root", regions=["eu", "us"], region_quorum="all"
)
SERVICE: Final = Service(tenant="acme", service="crm", revision=1)
EMBEDDING: Final = app("engine", "*/*", regions=["eu", "us"])
"""The application in whose processes the roster's Gateways are."""
BLOB: Final = 72
KEY: Final = 32

ROSTER: Final = trust_rig.roster()
VERIFIER: Final = Verifier(ROSTER)
SIGNED_ROSTER: Final = encode(identity(ROOT).sign(Kind.ROSTER, ROSTER))
_incarnations: Final = itertools.count(1)


def instance_context(name: str) -> InstanceContext:
    return InstanceContext(
        identity(name),
        VERIFIER.instance(name),
        Rosters(VERIFIER, raw=SIGNED_ROSTER, root_public=identity(ROOT).public),
        next(_incarnations).to_bytes(16, "big"),
    )


def signed(kind: Kind, message: Any, signer: str = "admin") -> bytes:
    return encode(identity(signer).sign(kind, message))


def is_request(subject: str) -> bool:
    """Whether it is one of a session, and does not begin one."""
    return subject.count(".") == 7


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
    lease = trust_rig.lease(me.name, me.role, me.region)
    return lease.model_copy(update={"incarnation": me.incarnation})


class Switch:
    """The kill switch of one Core: what it learns takes effect, and is durable, at once."""

    def __init__(self, core: Core, rosters: RosterFollower) -> None:
        self._core = core
        self.told: list[HoldState] = []
        self.registered = Incarnations()
        self.rosters = rosters
        self.lift_pages: tuple[()] = ()

    async def renew(self) -> None:
        """The lease entry shows it at once."""

    def verify(self, raw: bytes) -> HoldState:
        return to_state(self._core.me.verifier.hold_or_lift(raw))

    def issue(self, record: HoldState) -> None:
        for tenant in self._core.revocations.learn(record).purge:
            self._core.purge(tenant)

    async def broadcast(self, record: HoldState) -> None:
        self.told.append(record)

    def durable_at(self, hold_id: bytes) -> int:
        return 1 if self._core.revocations.holds.get(hold_id) else 0

    def stored_since(self, record: HoldState) -> float:
        return 0.0

    def listen(self, *_: Any) -> None:
        """Other regions and other Cores' attestations send nothing."""

    def on_registry(self, differs: Any) -> None:
        """A test calls it: another Core shows another registry."""
        self.registry_differs = differs


class Attestations:
    """A control stream that takes whatever is put."""

    async def put(self, subject: str, body: bytes) -> int:
        return 1


class Room:
    """The audit trail: it has room until a test says that it has none."""

    has_room = True
    refusal = "the audit trail cannot take more"


class Core:
    """One incarnation: the product's composition over fakes, without a replica."""

    def __init__(
        self, world: World, name: str, *, seal_key: Path | None = None, remembers: bool = True
    ) -> None:
        """``remembers``: its disk has what it wrote there, or that there was nothing."""
        self.world = world
        self.me = instance_context(name)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.room = Room()
        self.state = primed(world.clock.elapsed(), self.me.region, "eu", "us")
        self.registry, self.revocations = self.state.registry, self.state.revocations
        self.freshness, self.admission = self.state.freshness, self.state.admission
        ports = self._ports(seal_key or world.seal_key, remembers=remembers)
        stream = ControlLog(world.bus, self.me.region, world.clock)  # type: ignore[arg-type]
        host = ports.host
        self.rosters = RosterFollower(
            self.me, stream, RejectionLog("control", self._emit), self._emit, host.randomness,
            world.clock,
        )  # fmt: skip
        self.switch: Any = Switch(self, self.rosters)
        self.incarnations = self.switch.registered
        parts = assemble(ports, self.switch)
        self.store, self.vault, self.feed = ports.store, ports.vault, ports.feed
        self.holds, self.watch = parts.kill_switch.automatic_holds, parts.kill_switch.monitor
        self.loader, self.creator, self.rewrapper = (
            parts.keys.loader, parts.keys.creator, parts.keys.rewrapper,
        )  # fmt: skip
        self.sessions, self.wrapping = parts.keys.sessions, parts.keys.wrapping
        self.keys = parts.keys
        self._comparison = parts.registry.comparison
        self.baseline, self.keeper = parts.registry.baseline, parts.registry.keeper
        self.joining, self.admin = parts.registry.recovery, parts.admin
        self.sealed_admin = parts.sealed_admin

    def _ports(self, seal_key: Path, *, remembers: bool) -> Ports:
        world, region = self.world, self.me.region
        bus: Any = world.bus
        randomness = SystemKeyRandomness()
        host = Host(self.me, world.clock, randomness, self._emit, chance=lambda: 0.5)
        floors = Floors(world.state / f"{self.me.name}-floors")
        if remembers and floors.fresh:
            floors.begin([])
            floors.use()
        second_store = FileKeyStore(world.directory)
        self.region_bus = world.wire.join(self.me.name)
        self.session_keys = SessionKeys(host, randomness, Arena)
        stream: Any = Attestations()
        return Ports(
            host=host,
            replica_state=self.state,
            region=next(one for one in ROSTER.regions if one.region == region),
            region_bus=self.region_bus,
            buckets=bus,
            control_bus=self.region_bus,
            stream=stream,
            hold_store=NullHoldStore(),
            results=ResultBucket(bus),
            feed=RegistryFollower(
                bus, self.me, self.revocations, self.purge, self.freshness.registry, world.clock
            ),
            floors=floors,
            second_store=second_store,
            store=KeyStore(host, bus, second_store),
            vault=Vault(region, SealKey(trust_rig.ID, str(seal_key)), randomness),
            session_keys=self.session_keys,
            unsealer=world.unsealer,
            purge=self.purge,
            unload=self.purge,
            audit_room=self.room,
            limits=Limits(l1_deadline_s=5.0),
        )

    @property
    def comparisons(self) -> int:
        """How often the registry had everything that the second store has."""
        return self._comparison.count

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def _learn_application(self) -> None:
        if not self.registry.app(EMBEDDING.app):
            self.registry.put(EMBEDDING)

    def learn(self, *records: Tenant | Link | Service) -> None:
        if not records:
            self._learn_application()
        for record in records or (LINK, TENANT, SERVICE):
            for tenant in self.revocations.register(record).purge:
                self.purge(tenant)

    async def made(self) -> Core:
        """With the tenant's root and the service's key, closed."""
        self.learn()
        await self.creator.root(TENANT, LINK)
        await self.creator.service(SERVICE)
        self.purge("acme")
        return self

    def purge(self, tenant: str) -> int:
        """As the service puts it together."""
        return overwrite_keys(self.admission, self.vault, tenant)

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
        if f".core.{self.me.name}." not in subject:
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        handle = self.wrapping.handle if is_request(subject) else self.keys.begin
        try:
            return await handle(subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))

    def client(self, name: str = "gw-eu", ask: Any = None, clock: Any = None) -> CoreClient:
        """A caller whose incarnation, and whose application, this Core has on record."""
        me = instance_context(name)
        self._learn_application()
        self.caller_lease = lease_of(me)
        self.incarnations.take(self.caller_lease, 1, self.world.clock.elapsed())
        clock = clock or self.world.clock
        return CoreClient(
            ask or self.answer, unheld(me), clock, SystemKeyRandomness(), 2.0, sleep=clock.sleep
        )
