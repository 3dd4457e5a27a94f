"""Tenants and their services."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.admin.requests import PageRows
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Cursor, Id, Name, Text
from kcm_schemas.registry import RegionQuorum

TenantState = Literal["open", "closed", "killed"]
"""Killed: a hold covers the tenant. Open: the answering Core has the tenant root in memory. Closed:
that Core unwraps the tenant root at the next request. Only *killed* is the same for every Core."""


class TenantQuery(Message):
    """Ask for one tenant."""

    tenant: Name


class TenantRow(Message):
    """A tenant as one Core has it in memory; ``services`` and ``holds`` are counts.

    ``core`` is the Core that answers.
    """

    tenant: Name
    region: Name
    core: Name
    revision: U64
    link: Name
    uri: Text
    model: Text
    regions: list[Name]
    region_quorum: RegionQuorum
    state: TenantState
    services: U32
    holds: U32


class TenantListQuery(Message):
    """Ask for a page of a region's tenants, ordered by name, from the first one after ``after``."""

    after: Cursor
    limit: PageRows


class TenantPage(Message):
    """Tenants of a region, ordered by name; ``total`` counts all of them."""

    tenants: list[TenantRow]
    total: U32
    more: bool


class TenantShowQuery(Message):
    """Ask for a tenant and a page of its services, from the first service after ``after``."""

    tenant: Name
    after: Cursor
    limit: PageRows


class ServiceView(Message):
    """A service and the current version of its key; 0 if this region has none yet."""

    service: Name
    l3_version: U32


class TenantView(Message):
    """A tenant as one Core has it, with the versions of its keys and a page of its services.

    ``total`` counts all of its services. ``holds`` has the ids of holds that cover the tenant, at
    most ``HOLDS_NAMED_MAX``. ``core`` is the Core that answers.
    """

    tenant: Name
    region: Name
    core: Name
    revision: U64
    link: Name
    uri: Text
    model: Text
    regions: list[Name]
    region_quorum: RegionQuorum
    state: TenantState
    l2_version: U32
    services: list[ServiceView]
    holds: Annotated[list[Id], Field(max_length=limits.HOLDS_NAMED_MAX)]
    total: U32
    more: bool


class ServiceListQuery(Message):
    """Ask for a page of a tenant's services, by name, from the first one after ``after``."""

    tenant: Name
    after: Cursor
    limit: PageRows


class ServiceRow(Message):
    """A service as an operator signed it."""

    tenant: Name
    service: Name
    revision: U64


class ServicePage(Message):
    """Services of a tenant, ordered by name; ``total`` counts all of them."""

    services: list[ServiceRow]
    total: U32
    more: bool
