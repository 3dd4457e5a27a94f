"""Incarnations of a system in memory: the production classes of the kill switch over strict ports.

``System`` has the wire between regions and a stream for each, ``Incarnation`` is an instance with
its kill switch, and ``CoreIncarnation`` one with everything that a Core has. Time is virtual.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kcm_core.assembly import Limits, Ports, assemble
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.registry.floors import Floors
from kcm_keymem.arena import Arena
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.model.probe_scheduler import PROBES_PER_S
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_store import FileHoldStore, NullHoldStore
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.data import Failure
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.roster import Role
from kcm_sessions.session_keys import SessionKeys

from tests.fakes.bus import Bus
from tests.fakes.stream_log import FakeLog, Stream
from tests.fakes.unsealer import FakeUnsealer
from tests.fakes.virtual import VirtualClock, let_pass
from tests.fakes.wire import Wire
from tests.unit.app_rig import app
from tests.unit.core_rig import is_request
from tests.unit.switch.statements import (
    ID,
    LINK,
    REGIONS,
    VERIFIER,
)
from tests.vectors.families.messages import identity

_incarnations = itertools.count(1)


async def watched(system: System) -> None:
    """Let every Core that runs watch for longer than any lease lasts."""
    await let_pass(system.timing.incarnation_bound_s(0) + 1)


class System:
    """What all incarnations share."""

    def __init__(self, path: Path, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.wire = Wire()
        self.streams = {region: Stream() for region in REGIONS}
        self.buses = {region: Bus() for region in REGIONS}
        self.unsealers = {region: FakeUnsealer() for region in REGIONS}
        self.path = path
        self.incarnations: list[Incarnation] = []
        self.everybody: list[Incarnation] = []
        self.services: list[Service] = []
        """What the feeds of all incarnations of a region bring, as soon as one Core has made it."""
        for region in REGIONS:
            (path / region).mkdir()
        self.seal_key = path / "seal"
        self.seal_key.write_bytes(os.urandom(32))
        self.seal_key.chmod(0o600)

    def incarnation(self, name: str, **options: Any) -> Incarnation:
        made = Incarnation(self, name, **options)
        self.incarnations.append(made)
        return made

    def core(self, name: str, **options: Any) -> CoreIncarnation:
        made = CoreIncarnation(self, name, **options)
        self.incarnations.append(made)
        return made

    async def close(self) -> None:
        for incarnation in self.incarnations:
            if incarnation.alive:
                await incarnation.close()


class Incarnation:
    """One run of an instance: what it knows, what it purged, and its kill switch."""

    def __init__(
        self,
        system: System,
        name: str,
        *,
        rosters: Rosters | None = None,
        hold_store: HoldStore | None = None,
        chance: Any = lambda: 0.5,
    ) -> None:
        """``rosters``: those that it was started with; without, it takes no other roster."""
        self.system = system
        self.clock = VirtualClock(1_000.0 * next(_incarnations))
        incarnation = next(_incarnations).to_bytes(16, "big")
        known = rosters or Rosters(VERIFIER)
        self.me = InstanceContext(identity(name), known.verifier.instance(name), known, incarnation)
        self.stream = system.streams[self.me.region]
        self.log = FakeLog(self.stream)
        self.bus = system.wire.join(name)
        self.state = ReplicaState.empty(self.me.region, system.timing)
        self.registry, self.revocations = self.state.registry, self.state.revocations
        self.freshness, self.admission = self.state.freshness, self.state.admission
        self.registry.put(app("engine", "*/*", regions=list(REGIONS)))
        self.purged: list[str] = []
        self.broken: set[str] = set()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.alive = True
        self.on_purge: Any = lambda tenant: None
        self.randomness = SystemKeyRandomness()
        self.host = Host(self.me, self.clock, self.randomness, self.emit, chance)
        self.hold_store = hold_store or NullHoldStore()
        if hold_store is None and self.me.role is Role.CORE:
            self.hold_store = FileHoldStore(system.path / "state" / name)
        self.switch = KillSwitch(
            self.host,
            self.state,
            stream=self.log,
            hold_store=self.hold_store,
            control_bus=self.bus,
            purge=self.purge,
        )
        for record in system.services:
            self.revocations.register(record)
        system.everybody.append(self)

    @property
    def region(self) -> str:
        return self.me.region

    @property
    def follower(self) -> Any:
        assert self.log.following is not None
        return self.log.following

    def emit(self, type: str, **fields: Any) -> None:  # noqa: A002 - as the port names it
        self.events.append((type, fields))

    def purge(self, tenant: str) -> int:
        if tenant in self.broken:
            raise RuntimeError("a fault")
        self.on_purge(tenant)
        self.purged.append(tenant)
        self.admission.close(tenant)
        return 1

    def learn(self, *records: Tenant | Link | Service) -> None:
        for record in records:
            for name in self.revocations.register(record).purge:
                self.purge(name)
            if isinstance(record, Service) and record not in self.system.services:
                self.system.services.append(record)
                for other in self.system.everybody:
                    other.learn(record)
        self.freshness.registry.changed(self.revocations.registry_digests)

    async def start(self) -> None:
        await self.switch.start()

    async def close(self) -> None:
        self.alive = False
        await self.switch.close()

    async def crash(self) -> None:
        """Gone without a word: its tasks end, its connections are closed, nothing is written."""
        self.alive = False
        self.log.connected = self.bus.connected = False
        await self.close()

    def live(self) -> bool:
        return self.freshness.lease.until() > self.clock.elapsed()

    def count(self, kind: str) -> int:
        return sum(one == kind for one, _ in self.events)


class Room:
    """The audit trail has room."""

    has_room = True
    refusal = ""


class CoreIncarnation(Incarnation):
    """A Core: the product's composition over these ports."""

    vault: Vault

    def __init__(
        self,
        system: System,
        name: str,
        *,
        unsealer: FakeUnsealer | None = None,
        chance: Callable[[], float] = lambda: 0.5,
        rosters: Rosters | None = None,
        probes_per_s: float = PROBES_PER_S,
    ) -> None:
        super().__init__(system, name, rosters=rosters, chance=chance)
        self.unsealer = unsealer or system.unsealers[self.me.region]
        ports = self._ports(Limits(l1_deadline_s=5.0, probes_per_s=probes_per_s))
        parts = assemble(ports, self.switch)
        self.vault, self.store = ports.vault, ports.store
        self.holds, self.watch = parts.kill_switch.automatic_holds, parts.kill_switch.monitor
        self.results, self.regions = parts.kill_switch.results, parts.kill_switch.regions
        self.kills = parts.kill_switch.kills
        self.loader, self.creator = parts.keys.loader, parts.keys.creator
        self.wrapping, self.sessions = parts.keys.wrapping, parts.keys.sessions

    def _ports(self, limits: Limits) -> Ports:
        region, system = self.me.region, self.system
        bus: Any = system.buses[region]
        floors = Floors(system.path / "state" / f"{self.me.name}-{next(_incarnations)}")
        floors.begin([])
        floors.use()
        second_store = FileKeyStore(system.path / region)
        room: Any = Room()
        return Ports(
            host=self.host,
            replica_state=self.state,
            region=next(one for one in VERIFIER.roster.regions if one.region == region),
            region_bus=self.bus,
            buckets=bus,
            control_bus=self.bus,
            stream=self.log,
            hold_store=self.hold_store,
            results=ResultBucket(bus),
            feed=RegistryFollower(
                bus,
                self.me,
                self.revocations,
                self.purge,
                self.freshness.registry,
                self.clock,
            ),
            floors=floors,
            second_store=second_store,
            store=KeyStore(self.host, bus, second_store),
            vault=Vault(region, SealKey(ID, str(system.seal_key)), self.randomness),
            session_keys=SessionKeys(self.host, self.randomness, Arena),
            unsealer=self.unsealer,
            purge=self.purge,
            unload=self.purge,
            audit_room=room,
            limits=limits,
        )

    def purge(self, tenant: str) -> int:
        super().purge(tenant)
        return self.vault.purge(tenant)

    async def start(self, *, regions: bool = True, watch: bool = True) -> None:
        await self.switch.start()
        await self.kills.start()
        if regions:
            await self.regions.start()
        if watch:
            self.watch.start()

    async def close(self) -> None:
        self.alive = False
        self.watch.close()
        self.holds.close()
        for name in self.vault.open_tenants:
            self.purge(name)
        self.kills.close()
        await self.regions.close()
        await self.switch.close()

    async def make(self, *tenants: Tenant, link: Link = LINK, service: str = "crm") -> None:
        """Register tenants and make their keys, then close them."""
        self.learn(link, *tenants)
        for one in tenants:
            await self.creator.root(one, link)
            record = Service(tenant=one.tenant, service=service, revision=1)
            self.learn(record)
            await self.creator.service(record)
        if self.freshness.position is not None:
            await self.switch.renew()  # as who accepted a record does, before it says so

    async def answer(self, subject: str, body: bytes, timeout_s: float = 1.0) -> bytes:
        """As the bus serves it."""
        try:
            handler = self.wrapping if is_request(subject) else self.sessions
            return await handler.handle(subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))
