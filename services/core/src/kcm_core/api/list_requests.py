"""Operators' requests that read lists: tenants, links and services."""

from __future__ import annotations

from typing import Final

from kcm_schemas.admin.links import LinkListQuery
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    TenantListQuery,
    TenantQuery,
    TenantShowQuery,
)
from kcm_schemas.codec import Message, decode

from kcm_core.api.tenant_list import TenantList


class ListRequests:
    """Decodes the queries, and answers them from the lists of this Core."""

    def __init__(self, listing: TenantList) -> None:
        self._listing: Final = listing

    async def tenants(self, request: AdminRequest) -> Message:
        """Answer ``tenant list``."""
        return self._listing.tenants(decode(TenantListQuery, request.payload))

    async def links(self, request: AdminRequest) -> Message:
        """Answer ``link list``."""
        return self._listing.links(decode(LinkListQuery, request.payload))

    async def find_tenant(self, request: AdminRequest) -> Message:
        """Answer ``tenant find``."""
        return await self._listing.tenant(decode(TenantQuery, request.payload).tenant)

    async def show_tenant(self, request: AdminRequest) -> Message:
        """Answer ``tenant show``."""
        query = decode(TenantShowQuery, request.payload)
        return await self._listing.show(query, request.deadline_ms)

    async def services(self, request: AdminRequest) -> Message:
        """Answer ``service list``."""
        return await self._listing.services(decode(ServiceListQuery, request.payload))
