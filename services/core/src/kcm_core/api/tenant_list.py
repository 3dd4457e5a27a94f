"""Lists of tenants and services for operators: in pages, from memory.

A page is cut from a sorted list of names, so its cost does not depend on the size of the region.
The stores are read only for key versions, for one tenant at a time, with several reads in parallel.
Reads stop at the deadline of the request, because the client does not wait for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_runtime.requests import check_deadline
from kcm_schemas import limits
from kcm_schemas.admin.links import LinkListQuery, LinkPage, LinkRow
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    ServiceRow,
    ServiceView,
    TenantListQuery,
    TenantPage,
    TenantRow,
    TenantShowQuery,
    TenantView,
)
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Tenant

from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import Vault

READS_AT_ONCE: Final = 8
"""Concurrent reads from the stores for one request, so that it does not use up their capacity."""

M = TypeVar("M", bound=Message)


class TenantList:
    """Pages of one region's tenants and services."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        feed: RegistryFollower,
        store: KeyStore,
        vault: Vault,
    ) -> None:
        self._region: Final = host.me.region
        self._core: Final = host.me.name
        self._clock: Final = host.clock
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._feed: Final = feed
        self._store: Final = store
        self._vault: Final = vault

    def tenants(self, query: TenantListQuery) -> TenantPage:
        """A page of the region's tenants."""
        found = self._registry.tenants_after(query.after, query.limit + 1)
        rows, cut = page_of([self._row(one) for one in found[: query.limit]])
        return TenantPage(
            tenants=rows,
            total=self._registry.tenant_count,
            more=cut or len(found) > query.limit,
        )

    def links(self, query: LinkListQuery) -> LinkPage:
        """A page of the region's links."""
        found = self._registry.links_after(query.after, query.limit + 1)
        rows, cut = page_of([self._link_row(one) for one in found[: query.limit]])
        return LinkPage(
            links=rows, total=self._registry.link_count, more=cut or len(found) > query.limit
        )

    async def tenant(self, name: str) -> TenantRow:
        """One tenant; raises ``unknown_tenant`` if the region's store has no such tenant."""
        return self._row(await self._known(name))

    async def services(self, query: ServiceListQuery) -> ServicePage:
        """A page of a tenant's services; raises as ``tenant`` does."""
        await self._known(query.tenant)
        found = self._registry.services_after(query.tenant, query.after, query.limit + 1)
        return ServicePage(
            services=[
                ServiceRow(tenant=one.tenant, service=one.service, revision=one.revision)
                for one in found[: query.limit]
            ],
            total=self._registry.service_count(query.tenant),
            more=len(found) > query.limit,
        )

    async def show(self, query: TenantShowQuery, deadline_ms: int) -> TenantView:
        """One tenant, with its key versions and a page of its services.

        At most ``PAGE_READS_MAX`` services, regardless of the query. Raises ``unknown_tenant``,
        ``unavailable``, and ``deadline_exceeded`` as soon as the deadline has passed.
        """
        row = self._row(await self._known(query.tenant))
        roots = await self._store.root(query.tenant)
        limit = min(query.limit, limits.PAGE_READS_MAX)
        found = self._registry.services_after(query.tenant, query.after, limit + 1)
        services: list[ServiceView] = []
        for at in range(0, limit, READS_AT_ONCE):
            check_deadline(deadline_ms, self._clock.unix_ms())
            part = found[at : min(at + READS_AT_ONCE, limit)]
            services += await asyncio.gather(
                *(self._service(one.tenant, one.service) for one in part)
            )
        held = self._revocations.active(query.tenant)[: limits.HOLDS_NAMED_MAX]
        return TenantView(
            **{**row.__dict__, "holds": [state.hold.id for state in held], "services": services},
            l2_version=roots.current if roots else 0,
            total=row.services,
            more=len(found) > limit,
        )

    async def _service(self, tenant: str, service: str) -> ServiceView:
        keys = await self._store.service(tenant, service)
        return ServiceView(service=service, l3_version=keys.current if keys else 0)

    async def _known(self, name: str) -> Tenant:
        tenant = self._registry.tenant(name)
        if tenant is None:
            await self._feed.fetch("tenant", name)
            tenant = self._registry.tenant(name)
        if tenant is None:
            raise KcmError(Code.UNKNOWN_TENANT, f"this region has no tenant {name}")
        return tenant

    def _link_row(self, link: Link) -> LinkRow:
        return LinkRow(
            link=link.link,
            region=self._region,
            revision=link.revision,
            uri=link.uri,
            model=link.model,
            tenants=len(self._registry.on_link(link.link)),
        )

    def _row(self, tenant: Tenant) -> TenantRow:
        name, link = tenant.tenant, self._registry.link(tenant.link)
        held = len(self._revocations.active(name))
        return TenantRow(
            tenant=name,
            region=self._region,
            core=self._core,
            revision=tenant.revision,
            link=tenant.link,
            uri=link.uri if link else "",
            model=link.model if link else "",
            regions=list(tenant.regions),
            region_quorum=tenant.region_quorum,
            state="killed" if held else "open" if self._vault.ring(name) else "closed",
            services=self._registry.service_count(name),
            holds=held,
        )


def page_of(rows: Sequence[M]) -> tuple[list[M], bool]:
    """The first rows that fit into the bytes of a page, and whether some were left out.

    At least one row: no row is longer than a page.
    """
    size = 0
    for count, row in enumerate(rows):
        size += len(encode(row))
        if count and size > limits.PAGE_BYTES:
            return list(rows[:count]), True
    return list(rows), False
