"""A simulated Core: production's switch, key monitor, regions, kills and loader; no ciphers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from kcm_core.keys.canaries import Canaries
from kcm_core.keys.loader import KeyLoader
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.monitor import KeyMonitor
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.lift_compaction import LiftCompaction
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.registry import key_of, replaces
from kcm_schemas import subjects
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant

from tests.simulation.instance import Instance
from tests.simulation.l1 import SimUnsealer
from tests.simulation.plan import Member
from tests.simulation.registry import joining_of, keeper_of, memory_of
from tests.simulation.variants import broken
from tests.simulation.vault import SERVICE, SimVault, unwrap_key, wrap_key

LEASE_MS: Final = 10_000
"""The longest for which an answer of a Core may be used."""


class SimCore(Instance):
    """Wraps and unwraps, and does its part of the kill switch."""

    def __init__(self, world: Any, who: Member) -> None:
        super().__init__(world, who)
        region = who.region
        chance = world.random.random
        store: Any = world.stores[region]
        vault: Any = SimVault(region)
        self.vault: Final = vault
        self.unsealer: Final = SimUnsealer(world.keys, region, who.name, self.incarnation)
        timing = world.plan.timing
        common: dict[str, Any] = {
            "membership": self.me,
            "revocations": self.revocations,
            "clock": self.clock,
        }
        self.key_holds: Final = AutomaticHolds(
            **common, switch=self.switch, settle_s=timing.settle_s, randomness=self.randomness
        )
        self.watch: Final = KeyMonitor(
            **common,
            freshness=self.freshness,
            admission=self.admission,
            canaries=Canaries(self.registry, store),
            unsealer=self.unsealer,
            holds=self.key_holds,
            stream=self.stream,
            purge=self.unload,
            emit=self.emit,
            chance=chance,
        )
        self.loader: Final = KeyLoader(
            **common,
            admission=self.admission,
            watch=self.watch,
            purge=self.unload,
            registry=self.registry,
            store=store,
            vault=vault,
            unsealer=self.unsealer,
            emit=self.emit,
            deadline_s=timing.probe_deadline_s,
        )
        self.results: Final = Results(
            self.host,
            store=world.results[region],
            control_bus=self.control_bus,
            switch=self.switch,
        )
        self.regions: Final = RegionSync(
            self.host,
            self.state,
            control_bus=self.control_bus,
            stream=self.stream,
            switch=self.switch,
            timing=timing,
            result_of=self.results.offer,
        )
        self.switch.listen(self.regions.on_peer_lease, self.watch.on_attestation)
        self.kills: Final = HoldCommands(
            self.host,
            self.state,
            control_bus=self.control_bus,
            switch=self.switch,
            regions=self.regions,
            timing=timing,
            results=self.results,
        )
        self.compaction: Final = LiftCompaction(
            replace(self.host, emit=self._paged),
            self.state,
            since=self.switch.stored_since,
            pages=self.switch.lifts,
            regions=self.regions,
            every_s=max(1.0, 2 * world.plan.page_s),
            keep_s=world.plan.page_s,
            least=1,
        )
        self.registry_memory: Final = memory_of(self)
        self.keeper: Final[RegistryKeeper | None] = (
            keeper_of(self, self.feed, world.buckets[region], self.registry_memory)
            if self.feed
            else None
        )
        if self.keeper is not None:
            self.switch.on_registry(self.keeper.compare)
        broken(world.plan.variant, self)

    async def know_registry(self) -> None:
        await super().know_registry()
        if self.keeper is not None:
            await self.keeper.start()

    async def start(self) -> None:
        await self.catch_up()
        if self.keeper is not None:
            await joining_of(self, self.keeper, self.registry_memory).start()
        await self.kills.start()
        await self.regions.start()
        self.watch.start()
        if self.world.plan.page_s:
            self.compaction.start()
        region = self.who.region
        await self.serve(subjects.core_all(region), f"core-{region}", self._keys)
        await self.serve(subjects.admin_all(region), f"core-{region}", self._admin)
        self.ready = True

    def drop(self, tenant: str) -> int:
        if any(root[0] == tenant for root in self.loader._opening):
            self.world.coverage.saw("an unseal in flight when a kill lands")
        self.admission.close(tenant)
        return self.vault.purge(tenant)

    def _paged(self, type: str, **fields: Any) -> None:  # noqa: A002 - the port's own name
        if type == "hold.compacted":
            self.world.coverage.saw("a page that a Core signed")

    async def _keys(self, subject: str, body: list[Any]) -> list[Any]:
        """As ``kcm_core.api.wrap.Wrapping`` does, with its checks and in its order."""
        asked = subjects.read_data(subject)
        caller, incarnation, deadline_ms, keys = body
        if self.clock.unix_ms() >= deadline_ms:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        if not self.switch.record.incarnations.knows(caller, incarnation):
            raise KcmError(Code.UNAVAILABLE)
        permit = self.admission.admit(asked.tenant, self.clock.elapsed())
        operation = self.began(asked.tenant)
        try:
            await self.loader.service_key(asked.tenant, SERVICE, 1)
            left = self.admission.recheck(permit, self.clock.elapsed())
            if self.vault.ring(asked.tenant) is None:
                raise KcmError(Code.TENANT_SEALED)
            work = wrap_key if asked.operation == "wrap" else unwrap_key
            done = [work(self.who.region, asked.tenant, key) for key in keys]
            self.admission.recheck(permit, self.clock.elapsed())
        except BaseException:
            self.world.oracle.ended(operation)
            raise
        self.world.oracle.output(operation)
        return [min(LEASE_MS, int(left * 1000)), done]

    async def _admin(self, subject: str, body: list[Any]) -> list[Any]:
        noun, verb = subjects.read_admin(subject)
        what, deadline_ms = body
        if self.clock.unix_ms() >= deadline_ms:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        if noun == "tenant":
            return await self._put_tenant(what)
        began, judged_by = self.world.loop.now, self.me.rosters.version
        placed = verb == "put"
        status = await (self.kills.place(what, deadline_ms) if placed else self.kills.status(what))
        self.world.words.told(self, status)
        if status.complete and not status.lifted:
            self.world.said_complete(status, self.who.name, began, judged_by)
        return [*_said(status), judged_by]

    async def _put_tenant(self, raw: bytes) -> list[Any]:
        """As ``kcm_core.api.admin.Admin`` does; roots are wrapped by every link already."""
        if self.feed is None:
            raise KcmError(Code.MALFORMED)
        self.registry_memory.require()
        record: Tenant = self.me.verifier.tenant(raw)
        await self.feed.fetch("tenant", record.tenant)
        known = self.registry.known(key_of(record))
        if known not in (None, record) and not replaces(known, record):
            raise KcmError(Code.CONFLICT)
        here = self.registry.tenant(record.tenant)
        if here is not None and here.link != record.link:
            self.revocations.begin(record.tenant)
            if self.revocations.active_on("link", record.link):
                raise KcmError(Code.TENANT_KILLED)
        await self.accept(raw, record)
        return []

    async def accept(self, raw: bytes, record: Tenant) -> None:
        """Accept a tenant's record that was checked; told to the oracle."""
        if self.keeper is None:
            raise KcmError(Code.MALFORMED)
        oracle, what = self.world.oracle, (record.tenant, self.who.region, record.revision)
        oracle.links.offered(*what, record.link)
        await self.keeper.accept(raw, record)
        oracle.accepted_record(*what, record.link)
        self.world.accepted(self)


def _said(status: HoldStatus) -> list[Any]:
    durable = all(region.durable_at for region in status.regions)
    ways = sorted(
        {incarnation.how for incarnation in status.incarnations}
        | {region.how for region in status.regions}
    )
    return [status.complete, status.lifted, durable, ways]
