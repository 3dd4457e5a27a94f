"""Tenants, links and services as operators sign them; wrapped keys as Cores sign them.

Every registry entry carries a revision that only rises, so that an older one is recognised when a
store or a broker returns it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Id, Name, Text

RegionQuorum = Literal["all", "majority", "local"]
Wrapped = Annotated[bytes, Field(min_length=limits.WRAPPED_SIZE, max_length=limits.WRAPPED_SIZE)]
L1Blob = Annotated[bytes, Field(min_length=1, max_length=limits.L1_BLOB_MAX)]


class Tenant(Message):
    """A customer: the regions that serve it, and the L1 link that unwraps its roots."""

    tenant: Name
    revision: U64
    link: Name
    regions: Annotated[list[Name], Field(min_length=1, max_length=32)]
    region_quorum: RegionQuorum


class Link(Message):
    """A reference to a customer's root key; never the key."""

    link: Name
    revision: U64
    uri: Text
    model: Literal["byok", "hyok"]


class Service(Message):
    """A service of a tenant: the owner of one chain of L3 versions."""

    tenant: Name
    service: Name
    revision: U64


class Accepted(Message):
    """A Core's statement that it validated a tenant, link or service and made its keys.

    ``statement`` is the digest of the operator's statement. That one counts only together with an
    acceptance of a Core of the region: a statement that a Core refused keeps a valid signature, and
    every party that has it can publish it.
    """

    statement: Digest
    region: Name
    roster: U32


class RegistryEntry(Message):
    """The value under one registry key: the operator's statement, and a Core's acceptance of it."""

    statement: Annotated[bytes, Field(max_length=limits.REGISTRY_STATEMENT_MAX)]
    accepted: Annotated[bytes, Field(max_length=4 * 1024)]


class RegistryQuestion(Message):
    """A Core without a baseline of its region's registry asks the other Cores for theirs."""

    region: Name
    nonce: Id


class RegistryAnswer(Message):
    """The digest of the registry of a Core with a baseline, valid for this nonce only.

    The digest also covers entries that the Core remembers and that both stores lost or have only at
    a lower revision: no other Core may know them.
    """

    region: Name
    nonce: Id
    digest: Digest


class WrappedRoot(Message):
    """One version of a tenant root (L2): the blob that the L1 made of the inner, sealed blob.

    The canary was wrapped at the same time under the same L1 key version and context;
    ``canary_digest`` is the SHA-256 of its plaintext.
    """

    version: U32
    seal_key_id: Id
    link: Name
    link_revision: U64
    blob: L1Blob
    mechanism: Text
    key_version: Text
    principal: Text
    canary: L1Blob
    canary_digest: Digest


class RootKeys(Message):
    """All versions of a tenant's root in one region, and the current one.

    While a tenant moves to another link, each version is listed twice, once for each link.
    """

    tenant: Name
    region: Name
    revision: U64
    current: U32
    versions: Annotated[list[WrappedRoot], Field(min_length=1, max_length=256)]


class WrappedService(Message):
    """One version of a service key (L3) under the tenant root ``l2_version``."""

    version: U32
    l2_version: U32
    state: Literal["active", "decrypt-only"]
    blob: Wrapped


class ServiceKeys(Message):
    """All versions of a service key in one region, and the current one."""

    tenant: Name
    region: Name
    service: Name
    revision: U64
    current: U32
    versions: Annotated[list[WrappedService], Field(min_length=1, max_length=1024)]
