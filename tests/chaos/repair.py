"""What an operator does when a broker's disk has gone bad: the runbook of ``docs/deployment.md``.

a node of several       take its store away and start it: it copies the others'
the only server         restart it once more, so that it knows what it lost
a stream is missing     provision the region
tenants are unknown     sign links, tenants and services again, as they were
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from kcm import Admin, ClientContext
from kcm._internal import statements
from kcm_broker.roles import Account
from kcm_devsystem import topology
from kcm_devsystem.broker_users import visitors_address
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import VAULT_STREAMS, provision_region
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js import errors as js_errors
from nats.js.api import StreamInfo

from tests.chaos import removal
from tests.chaos.history import History, TenantSpec
from tests.chaos.plant import Plant
from tests.chaos.traffic import CLOCK, SERVICE

UP_S = 6.0
"""Seconds for a server to come up, before it is said that it does not."""
COPY_S = 20.0
"""Seconds for a node to copy what the others have."""
POLL_S = 0.1
STORE_S = 5.0
"""Seconds for a region's store to answer."""


class Repair:
    """An operator's hands on brokers and registry."""

    def __init__(
        self,
        plant: Plant,
        context: ClientContext,
        admin: Admin,
        history: History,
        tell: Callable[[str], None],
    ) -> None:
        self._plant = plant
        self._context = context
        self._admin = admin
        self._history = history
        self._tell = tell

    async def runs(self, name: str) -> None:
        """See to it that a broker runs: a node that refuses its disk gets an empty one."""
        if not await self._comes_up(name) and self._has_others(name):
            self._note(f"{name} refuses its disk")
            await self.server(name)

    async def server(self, name: str) -> None:
        """Mend a broker whose disk went bad: by the others' copies, or as far as it can alone."""
        await self._plant.kill(name)
        if self._has_others(name):
            self._plant.wipe_disk(name)
        self._plant.start(name)
        await self._comes_up(name)
        copied = await self._copied(self._plant.region_of(name))
        how = "on an empty disk" if self._has_others(name) else "anew"
        self._note(f"{name} was started {how}{'' if copied else ', and has not copied all yet'}")

    async def region(self, region: str) -> str:
        """Provision a region and sign again what its registry lacks; returns what is left to do."""
        try:
            await asyncio.wait_for(self._provision(region), STORE_S)
            for tenant in self._history.tenants:
                if region in tenant.regions:
                    await self._tenant(region, tenant)
        except (KcmError, nats_errors.Error, js_errors.Error, TimeoutError) as error:
            return f"{region}: {error}"
        return ""

    async def remove(self, by: str, node: str) -> None:
        """Ask a server to take a node of its cluster off the list of nodes."""
        root, region = self._plant.root, self._plant.region_of(by)
        address = removal.address(root, region, topology.config_path(root, by))
        wrong = await removal.remove(address, node)
        self._note(f"{node} was removed from its cluster {wrong and f'or not: {wrong}'}")

    async def change(self, region: str, stream: str) -> None:
        """Have a stream's configuration written once more: to be ended in the middle of that."""
        with contextlib.suppress(KcmError, nats_errors.Error, js_errors.Error, TimeoutError):
            account = Account.VAULT if stream in VAULT_STREAMS else Account.REGION
            async with self._operator(region, account) as connection:
                info = await connection.jetstream().stream_info(stream)
                await connection.jetstream().update_stream(info.config)

    async def _copied(self, region: str) -> bool:
        """Wait until every node has what the others have: only then may another one be emptied."""
        until = CLOCK.elapsed() + COPY_S
        while CLOCK.elapsed() < until:
            with contextlib.suppress(KcmError, nats_errors.Error, js_errors.Error, TimeoutError):
                found = await self._streams(region)
                groups = [info.cluster for info in found if info.cluster]
                if found and all(
                    peer.current and not peer.offline
                    for group in groups
                    for peer in group.replicas or ()
                ):
                    return True
            await asyncio.sleep(POLL_S)
        return False

    def _has_others(self, name: str) -> bool:
        return len(self._plant.nodes(self._plant.region_of(name))) > 1

    async def _comes_up(self, name: str) -> bool:
        until = CLOCK.elapsed() + UP_S
        while not self._plant.is_ready(name):
            if CLOCK.elapsed() > until:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _provision(self, region: str) -> None:
        before = {info.config.name or "" for info in await self._streams(region)}
        async with (
            self._operator(region) as connection,
            self._operator(region, Account.VAULT) as vault,
        ):
            replicas = len(self._plant.nodes(region))
            await provision_region(connection, region, vault_bus=vault, replicas=replicas)
        after = {info.config.name or "" for info in await self._streams(region)}
        if after > before:
            self._note(f"{region} was provisioned again: {', '.join(sorted(after - before))}")

    async def _streams(self, region: str) -> list[StreamInfo]:
        """Every stream of a region, those of both accounts."""
        found: list[StreamInfo] = []
        for account in (Account.REGION, Account.VAULT):
            async with self._operator(region, account) as connection:
                found += await connection.jetstream().streams_info()
        return found

    @contextlib.asynccontextmanager
    async def _operator(
        self, region: str, account: Account = Account.REGION
    ) -> AsyncIterator[Connection]:
        root = self._context.path.parent
        address = visitors_address(self._context, root, region, account)
        connection = Connection(address, "chaos-operator")
        try:
            await connection.start()
            yield connection
        finally:
            await connection.close()

    async def _tenant(self, region: str, tenant: TenantSpec) -> None:
        """Sign it again: where everything is there this changes nothing, not even a revision.

        A Core that still remembers a tenant does not show whether the registry has it.
        """
        try:
            await self._admin.tenant(region, tenant.name)
        except KcmError as error:
            if error.code is not Code.UNKNOWN_TENANT:
                raise
            self._note(f"{tenant.name} is unknown in {region} and is signed again")
        await sign(self._admin, self._plant, region, tenant)

    def _note(self, text: str) -> None:
        self._history.repairs.append(text)
        self._tell(text)


async def sign(admin: Admin, plant: Plant, region: str, tenant: TenantSpec) -> None:
    """Link a tenant's key and put tenant and service on record, as in the beginning."""
    uri = plant.keys.create(tenant.link, "softkey")
    link = statements.link(admin.identity, tenant.link, uri=uri, model=tenant.model)
    record = statements.tenant(
        admin.identity,
        tenant.name,
        link=tenant.link,
        regions=tenant.regions,
        region_quorum=tenant.policy,
    )
    await admin.put_link(region, link)
    await admin.put(region, "tenant", record)
    await admin.put(region, "service", statements.service(admin.identity, tenant.name, SERVICE))
