"""A Core and a Gateway in this process, joined by a function call: the product without the network.

Everything but the broker and the customer's key is the production code: trust, sealed channel,
vault, kill switch's checks, audit events with their signatures. Keys lie in a temporary directory.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kcm_core.api.gateway_sessions import GatewaySessions
from kcm_core.api.wrap import WrapApi
from kcm_core.assembly import Limits, Ports
from kcm_core.assembly.key_service import key_service
from kcm_core.assembly.kill_switch import key_monitor
from kcm_core.keys.keyring import Keyring, ServiceKey
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.identities import APP, SYSTEM, make_trust
from kcm_gateway.assembly import Ports as GatewayPorts
from kcm_gateway.assembly import assemble
from kcm_gateway.config import EngineSettings
from kcm_gateway.engine import Gateway
from kcm_keymem.arena import Arena
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.store import Rosters
from kcm_schemas import data_subjects
from kcm_schemas.app import App, AppGrant
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Lease
from kcm_schemas.data import Failure
from kcm_schemas.registry import Link, RootKeys, Service, ServiceKeys, Tenant
from kcm_schemas.roster import Region, Role
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.session_opener import Ask
from kcm_trust.verify import Verifier, verify_roster

from tests.fakes.bus import Bus
from tests.fakes.stream_log import FakeLog, Stream
from tests.fakes.unsealer import FakeUnsealer
from tests.fakes.wire import Wire

REGION: Final = "eu-de"
TENANT: Final = "acme"
SERVICE: Final = "records"
BATCHES: Final = "batches"
"""Another service: pools of keys follow the load, and nobody's pool shall be filled in another's
turn."""

_LEASE_MS: Final = 10_000
_TIMING: Final = Timing(l1_lease_s=3600)
_CONTROL_LEASE_S: Final = 3600.0
"""Longer than any run: whether leases are live is looked at, renewing them is not measured."""

_CORE_TIMEOUT_S: Final = 5.0
_L1_DEADLINE_S: Final = 5.0


class MemoryStore(KeyStore):
    """Wrapped keys in this process; revisions by compare-and-set are not what is measured."""

    def __init__(self) -> None:
        self._roots: dict[str, RootKeys] = {}
        self._services: dict[tuple[str, str], ServiceKeys] = {}

    async def root(self, tenant: str) -> RootKeys | None:
        """A tenant's wrapped roots."""
        return self._roots.get(tenant)

    async def service(self, tenant: str, service: str) -> ServiceKeys | None:
        """A service's wrapped keys."""
        return self._services.get((tenant, service))

    async def next_revision(self, *key: str) -> int:
        """A revision above the highest."""
        known = self._roots.get(key[1]) if key[0] == "root" else self._services.get(key[1:3])  # type: ignore[arg-type]
        return known.revision + 1 if known else 1

    async def put_root(self, keys: RootKeys) -> None:
        """Keep a revision."""
        self._roots[keys.tenant] = keys

    async def put_service(self, keys: ServiceKeys) -> None:
        """Keep a revision."""
        self._services[keys.tenant, keys.service] = keys


@dataclass(frozen=True, slots=True)
class Rig:
    """What is measured: the engine, and the vault with an open service key."""

    gateway: Gateway
    vault: Vault
    ring: Keyring
    key: ServiceKey


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """Make it all, with one tenant and one service whose key is open."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    try:
        made = _Making(directory)
        await made.audit.start()
        try:
            yield await made.rig()
        finally:
            made.gateway.close()
            made.sessions.close()
            made.vault.purge(TENANT)
            await made.audit.close()
    finally:
        shutil.rmtree(directory)


class _Making:
    """The parts, wired as the composition roots do it."""

    def __init__(self, directory: Path) -> None:
        clock, randomness = SystemClock(), SystemKeyRandomness()
        core = Member(Role.CORE, REGION, 1)
        gateway = Member(Role.GATEWAY, REGION, 1, APP)
        public = make_trust(directory, [core, gateway], [REGION], time.time_ns() // 1_000_000)
        trust = Trust(directory)
        verifier = Verifier(verify_roster(trust.roster.read_bytes(), public, 0))
        region = verifier.roster.regions[0]
        me = member_of(trust, verifier, core, randomness)
        self.audit = AuditEmitter(no_broker(directory), me, clock, deliver=deliver)
        host = Host(me, clock, randomness, self.audit.emit, chance=lambda: 0.0)
        state = knowing_state(REGION, clock.elapsed())
        self.registry = state.registry
        self.vault = Vault(
            REGION, SealKey(region.seal_key_id, str(trust.seal_key(REGION))), randomness
        )
        caller = member_of(trust, verifier, gateway, randomness)
        unused: Any = None  # no key of this run refuses, so nothing is held
        ports = key_ports(host, state, region, self.vault, randomness, audit=self.audit)
        keys = key_service(ports, key_monitor(ports, unused), _registered(caller, clock.elapsed()))
        self.sessions, self.wrapping = keys.sessions, keys.wrapping
        self.loader, self.creator = keys.loader, keys.creator
        joined = Host(caller, clock, randomness, self.audit.emit)
        settings = EngineSettings(core_timeout_s=_CORE_TIMEOUT_S)
        self.gateway = assemble(gateway_ports(joined, state, self.ask), settings).engine

    async def rig(self) -> Rig:
        link = Link(link=TENANT, revision=1, uri="softkey:/bench/root", model="byok")
        tenant = Tenant(
            tenant=TENANT, revision=1, link=TENANT, regions=[REGION], region_quorum="local"
        )
        services = [Service(tenant=TENANT, service=name, revision=1) for name in (SERVICE, BATCHES)]
        self.registry.put(embedding())
        self.registry.put(link)
        self.registry.put(tenant)
        await self.creator.root(tenant, link)
        for service in services:
            self.registry.put(service)
            await self.creator.service(service)
        key = await self.loader.service_key(TENANT, SERVICE, 0)
        return Rig(self.gateway, self.vault, await self.loader.ring(TENANT), key)

    async def ask(self, subject: str, body: bytes, _timeout_s: float) -> bytes:
        """What ``kcm_runtime.nats.request_server`` does with a handler, without the bus."""
        try:
            return await served(self.wrapping, self.sessions, subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))


async def served(wrapping: WrapApi, sessions: GatewaySessions, subject: str, body: bytes) -> bytes:
    """Serve a request of a session, or one that begins a session."""
    in_session = subject.count(".") == data_subjects.core_all(REGION, TENANT).count(".")
    return await (wrapping if in_session else sessions).handle(subject, body)


def key_ports(
    host: Host,
    replica_state: ReplicaState,
    region: Region,
    vault: Vault,
    randomness: SystemKeyRandomness,
    *,
    audit: AuditEmitter,
) -> Ports:
    """What the parts that handle keys reach: stores and a root key in memory, no broker."""
    unused: Any = None
    return Ports(
        host=host,
        replica_state=replica_state,
        region=region,
        region_bus=unused,
        buckets=unused,
        control_bus=unused,
        stream=_Attestations(),  # type: ignore[arg-type]
        hold_store=unused,
        results=unused,
        feed=_NoFeed(),  # type: ignore[arg-type]
        floors=unused,
        second_store=unused,
        store=MemoryStore(),
        vault=vault,
        session_keys=SessionKeys(host, randomness, Arena),
        unsealer=FakeUnsealer(),
        purge=vault.purge,
        unload=vault.purge,
        audit_room=audit,
        limits=Limits(_LEASE_MS, _L1_DEADLINE_S),
    )


def gateway_ports(host: Host, replica_state: ReplicaState, ask: Ask) -> GatewayPorts:
    """What a Gateway reaches: a Core by a function call, and a broker in memory that it leaves."""
    region_bus: Any = _Calls(ask)
    buckets: Any = Bus()
    return GatewayPorts(
        host=host,
        replica_state=replica_state,
        randomness=SystemKeyRandomness(),
        region_bus=region_bus,
        buckets=buckets,
        control_bus=Wire().join(host.me.name),
        stream=FakeLog(Stream()),
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """The region's bus: each request is a call."""

    request: Ask


class _NoFeed:
    """Every registry entry is known, so none is fetched."""

    async def fetch_service(self, tenant: str, service: str) -> None:
        """Fetch nothing."""


def knowing_state(region: str, now: float) -> ReplicaState:
    """As if the stream had acknowledged this incarnation's lease entry, and delivered it."""
    state = ReplicaState.empty(region, _TIMING)
    freshness = state.freshness
    freshness.lease.length_s = _CONTROL_LEASE_S  # type: ignore[misc] # no system may have it so
    position = LogPosition(1, bytes(16))
    freshness.wrote(now, 0, position)
    freshness.leased(position, own=True)
    freshness.delivered(1)
    return state


def embedding() -> App:
    """The application of the rigs' Gateways."""
    grant = AppGrant(tenant="*", service="*", verbs=["decrypt", "encrypt"])
    return App(
        app=APP,
        revision=1,
        previous=bytes(32),
        public_key=bytes(31) + b"\2",
        grants=[grant],
        regions=[REGION],
        not_before_ms=0,
        not_after_ms=1 << 50,
        plain=False,
        revoked=False,
    )


def member_of(
    trust: Trust, verifier: Verifier, member: Member, randomness: SystemKeyRandomness
) -> InstanceContext:
    identity = load_identity(member.name, str(trust.key(member.name)), SYSTEM)
    return InstanceContext(
        identity, verifier.instance(member.name), Rosters(verifier), randomness.public(16)
    )


def no_broker(directory: Path) -> Connection:
    """A connection that is never opened: events are delivered to ``deliver``."""
    return Connection(BusAddress(url="", user="none", password_file=directory / "none"), "bench")


class _Attestations(ControlLog):
    """A control stream that takes whatever is put."""

    def __init__(self) -> None:
        """Without a broker."""

    async def put(self, *_: object, **__: object) -> int:
        """Acknowledge at once."""
        return 1


def _registered(caller: InstanceContext, now: float) -> Incarnations:
    """The Gateway's lease entry, read."""
    records = Incarnations()
    lease = Lease(
        instance=caller.name,
        incarnation=caller.incarnation,
        role=caller.role,
        region=caller.region,
        nonce=bytes(16),
        first=0,
        lease_ms=_LEASE_MS,
        holds=bytes(32),
        registry=[bytes(16)] * 16,
        roster=1,
        ended=False,
    )
    records.take(lease, 1, now)
    return records


async def deliver(_subject: str, _body: bytes) -> None:
    """Acknowledge a signed batch of events at once."""
