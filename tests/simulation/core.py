"""A simulated Core: production's switch, key monitor, regions, kills and loader; no ciphers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from kcm_core.assembly import Limits, PageLimits, Ports
from kcm_core.assembly.key_service import key_loader
from kcm_core.assembly.kill_switch import kill_switch
from kcm_core.assembly.registry import registry_parts
from kcm_core.registry.keeper import RegistryKeeper
from kcm_killswitch.model.registry_objects import key_of, replaces
from kcm_schemas import data_subjects, subjects
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.app import App
from kcm_schemas.asks import Asked
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant

from tests.simulation.instance import Instance
from tests.simulation.l1 import SimUnsealer
from tests.simulation.plan import Member
from tests.simulation.registry import bucket_of, floors_of
from tests.simulation.sessions import CoreDoor
from tests.simulation.variants import RESULT_STORES, broken
from tests.simulation.vault import ANY_CORE, SERVICE, SimVault, unwrap_key, wrap_key

LEASE_MS: Final = 10_000
"""The longest for which an answer of a Core may be used."""


class SimCore(Instance):
    """Wraps and unwraps, and does its part of the kill switch."""

    def __init__(self, world: Any, who: Member) -> None:
        super().__init__(world, who)
        self.vault: Final[Any] = SimVault(who.region)
        self.unsealer: Final = SimUnsealer(world.keys, who.region, who.name, self.incarnation)
        ports = self._ports()
        parts = kill_switch(ports, self.switch)
        self.key_holds: Final = parts.automatic_holds
        self.watch: Final = parts.monitor
        self.results: Final = parts.results
        self.regions: Final = parts.regions
        self.kills: Final = parts.kills
        self.compaction: Final = parts.compaction
        self.loader: Final = key_loader(ports, parts.monitor)
        self.registry_parts: Final = (
            registry_parts(ports, self.switch, self._until_shown) if self.feed else None
        )
        self.door: Final = CoreDoor(self) if world.plan.asks else None
        broken(world.plan.variant, self)

    @property
    def keeper(self) -> RegistryKeeper | None:
        """The part that repairs the registry, where the registry can change."""
        return self.registry_parts.keeper if self.registry_parts is not None else None

    @property
    def remembers(self) -> bool:
        """Whether it has a baseline of its region's registry."""
        return self.registry_parts is not None and self.registry_parts.baseline.present

    async def _until_shown(self) -> object:
        return await self.shown()

    async def shown(self) -> object:
        """Return once this Core's lease entry shows the current registry."""
        return await self.switch.renew()

    def _ports(self) -> Ports:
        """What is simulated; of the rest no simulated part makes use."""
        world, region = self.world, self.who.region
        bucket = world.buckets.get(region)
        naive = RESULT_STORES.get(world.plan.variant)
        unused: Any = None
        return Ports(
            host=replace(self.host, emit=self._emitted),
            replica_state=self.state,
            region=next(one for one in self.me.verifier.roster.regions if one.region == region),
            region_bus=self.region_bus,
            buckets=bucket_of(self, bucket) if bucket else unused,
            control_bus=self.control_bus,
            stream=self.stream,
            hold_store=self.hold_store,
            results=naive(world.results[region]) if naive else world.results[region],
            feed=self.feed or unused,
            floors=floors_of(self),
            second_store=bucket.directory if bucket else unused,
            store=world.stores[region],
            vault=self.vault,
            session_keys=unused,
            unsealer=self.unsealer,
            purge=self.purge,
            unload=self.unload,
            audit_room=unused,
            limits=Limits(
                lease_ms=LEASE_MS,
                l1_deadline_s=world.plan.timing.probe_deadline_s,
                pages=PageLimits(max(1.0, 2 * world.plan.page_s), world.plan.page_s, 1),
            ),
        )

    async def know_registry(self) -> None:
        await super().know_registry()
        if self.registry_parts is not None:
            await self.registry_parts.keeper.start()

    async def start(self) -> None:
        await self.catch_up()
        if self.registry_parts is not None:
            await self.registry_parts.recovery.start()
        await self.kills.start()
        await self.regions.start()
        self.watch.start()
        if self.world.plan.page_s:
            self.compaction.start()
        region = self.who.region
        if self.door is None:
            await self.serve(data_subjects.core_all(region, ANY_CORE), f"core-{region}", self._keys)
        else:
            name = self.who.name
            await self.serve(data_subjects.core_all(region, name), name, self._keys)
            await self.serve(data_subjects.core_sessions(region, name), name, self.door.begin)
        await self.serve(subjects.admin_all(region), f"core-{region}", self._admin)
        self.ready = True

    def drop(self, tenant: str) -> int:
        if self.loader.waiting.get(tenant):
            self.world.coverage.saw("an unseal in flight when a kill lands")
        self.admission.close(tenant)
        return self.vault.purge(tenant)

    def _emitted(self, type: str, **fields: Any) -> None:  # noqa: A002 - the port's own name
        if type == "hold.compacted":
            self.world.coverage.saw("a page that a Core signed")
        self.emit(type, **fields)

    async def _keys(self, subject: str, body: list[Any]) -> list[Any]:
        """As ``kcm_core.api.wrap.Wrapping`` does, with its checks and in its order."""
        asked = data_subjects.read_core(subject)
        caller, session, counter, deadline_ms, keys, by = body
        if self.clock.unix_ms() >= deadline_ms:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        if self.door is not None:
            gateway = self.door.enter(caller, session, counter)
        elif not self.switch.registered.knows(caller, session):
            raise KcmError(Code.UNAVAILABLE)
        permit = self.admission.admit(asked.tenant, self.clock.elapsed())
        operation = self.began(asked.tenant)
        try:
            await self.loader.service_key(asked.tenant, SERVICE, 1)
            left = self.admission.recheck(permit, self.clock.elapsed())
            if self.vault.ring(asked.tenant) is None:
                raise KcmError(Code.TENANT_UNAVAILABLE)
            work = wrap_key if asked.operation == "wrap" else unwrap_key
            if self.door is not None and asked.operation == "unwrap":
                self.door.judge(gateway, asked, keys, [decode(Asked, one) for one in by])
            done = [work(self.who.region, asked.tenant, key) for key in keys]
            self.admission.recheck(permit, self.clock.elapsed())
        except BaseException:
            self.world.oracle.operations.ended(operation)
            raise
        self.world.oracle.operations.output(operation)
        return [min(LEASE_MS, int(left * 1000)), done]

    async def _admin(self, subject: str, body: list[Any]) -> list[Any]:
        noun, verb = subjects.read_admin(subject)
        what, deadline_ms = body
        if self.clock.unix_ms() >= deadline_ms:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        if noun in ("app", "tenant"):
            return await self._put(noun, what)
        began, judged_by = self.world.loop.now, self.me.rosters.version
        placed = verb == "put"
        status = await (self.kills.place(what, deadline_ms) if placed else self.kills.status(what))
        self.world.words.told(self, status)
        if status.complete and not status.lifted:
            self.world.said_complete(status, self.who.name, began, judged_by)
        return [*_said(status), judged_by]

    async def _put(self, noun: str, raw: bytes) -> list[Any]:
        """As ``RegistryRequests`` of a Core does; roots are wrapped by every link already."""
        if self.feed is None or self.registry_parts is None:
            raise KcmError(Code.MALFORMED)
        self.registry_parts.baseline.require()
        verifier = self.me.verifier
        record = verifier.app(raw) if noun == "app" else verifier.tenant(raw)
        await self.feed.fetch(*key_of(record))
        known = self.registry.known(key_of(record))
        if known not in (None, record) and not replaces(known, record):
            raise KcmError(Code.CONFLICT)
        if isinstance(record, Tenant):
            self._check_move(record)
        await self.accept(raw, record)
        return []

    def _check_move(self, record: Tenant) -> None:
        here = self.registry.tenant(record.tenant)
        if here is not None and here.link != record.link:
            self.revocations.begin(record.tenant)
            if self.revocations.active_on("link", record.link):
                raise KcmError(Code.TENANT_KILLED)

    async def accept(self, raw: bytes, record: Tenant | App) -> None:
        """Accept a record that was checked; told to the oracle."""
        if self.registry_parts is None:
            raise KcmError(Code.MALFORMED)
        region, world = self.who.region, self.world
        if isinstance(record, Tenant):
            name, value, known = record.tenant, record.link, world.oracle.links
        else:
            name, value, known = record.app, world.apps.made(record), world.apps.entries
        known.offered(name, region, record.revision, value)
        await self.registry_parts.keeper.accept(raw, record)
        world.oracle.accepted_record(known, name, region, record.revision, value)
        world.accepted(self)


def _said(status: HoldStatus) -> list[Any]:
    durable = all(region.durable_at for region in status.regions)
    ways = sorted(
        {incarnation.how for incarnation in status.incarnations}
        | {region.how for region in status.regions}
    )
    return [status.complete, status.lifted, durable, ways]
