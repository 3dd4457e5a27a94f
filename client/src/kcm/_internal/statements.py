"""Statements of an operator: signed tenants, links, services, holds and lifts, as bytes.

The same entry, signed by the same key, has the same bytes, so a region that has it changes nothing.
A hold is the exception: its id commits to a random salt, so each one is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kcm_schemas.app import App
from kcm_schemas.codec import Message, encode
from kcm_schemas.control import Scope
from kcm_schemas.registry import Link, RegionQuorum, Service, Tenant
from kcm_schemas.signed import Kind
from kcm_trust import statements
from kcm_trust.identity import Identity


def tenant(
    identity: Identity,
    name: str,
    *,
    link: str,
    regions: Sequence[str],
    region_quorum: RegionQuorum,
    revision: int = 1,
) -> bytes:
    """Return a signed tenant. Its regions are sorted, because their order has no meaning."""
    content = Tenant(
        tenant=name,
        revision=revision,
        link=link,
        regions=sorted(set(regions)),
        region_quorum=region_quorum,
    )
    return _sign(identity, Kind.TENANT, content)


def link(
    identity: Identity, name: str, *, uri: str, model: Literal["byok", "hyok"], revision: int = 1
) -> bytes:
    """Return a signed reference to a customer's root key."""
    return _sign(identity, Kind.LINK, Link(link=name, revision=revision, uri=uri, model=model))


def service(identity: Identity, tenant_name: str, name: str, *, revision: int = 1) -> bytes:
    """Return a signed service of a tenant."""
    content = Service(tenant=tenant_name, service=name, revision=revision)
    return _sign(identity, Kind.SERVICE, content)


def app(identity: Identity, entry: App) -> bytes:
    """Return a signed application."""
    return _sign(identity, Kind.APP, entry)


def hold(
    identity: Identity,
    *,
    scope: Scope,
    target: str,
    origin: str,
    issued_ms: int,
    reason: str,
    salt: bytes,
) -> tuple[bytes, bytes]:
    """Return a new hold's id and the signed hold. Any process with the latter can place it."""
    return statements.hold(
        identity,
        scope=scope,
        target=target,
        cause="operator",
        origin=origin,
        issued_ms=issued_ms,
        reason=reason,
        salt=salt,
    )


def lift(identity: Identity, held: bytes, *, issued_ms: int, reason: str) -> bytes:
    """Return a signed lift of the signed hold ``held``."""
    return statements.lift(identity, held, issued_ms=issued_ms, reason=reason)


def _sign(identity: Identity, kind: Kind, content: Message) -> bytes:
    return encode(identity.sign(kind, content))
