"""What an operator signs: tenants, links, services, holds and lifts, as bytes to be sent anywhere.

The same record, signed by the same key, is the same bytes: sending it again, or to another region,
changes nothing. A hold is the exception, it is new each time: its id commits to a random salt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
    """A signed tenant. Its regions are sorted: their order says nothing."""
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
    """A signed reference to a customer's root key."""
    return _sign(identity, Kind.LINK, Link(link=name, revision=revision, uri=uri, model=model))


def service(identity: Identity, tenant_name: str, name: str, *, revision: int = 1) -> bytes:
    """A signed service of a tenant."""
    content = Service(tenant=tenant_name, service=name, revision=revision)
    return _sign(identity, Kind.SERVICE, content)


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
    """A new hold's id, and the signed hold. Whoever has the latter can put it in force."""
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
    """A signed end of the signed hold ``held``."""
    return statements.lift(identity, held, issued_ms=issued_ms, reason=reason)


def _sign(identity: Identity, kind: Kind, content: Message) -> bytes:
    return encode(identity.sign(kind, content))
