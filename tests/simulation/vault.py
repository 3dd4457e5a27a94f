"""Keys without cryptography: which are open, in which generation, and what they would open.

A wrapped key authenticates its region, tenant and service, so that nothing opens by accident.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256
from typing import Any, Final

from kcm_core.keys.keyring import RootName, ServiceKey, ServiceName
from kcm_core.providers.context import provider_context
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.limits import WRAPPED_SIZE
from kcm_schemas.registry import RootKeys, ServiceKeys, WrappedRoot, WrappedService

from tests.simulation.history import TenantFacts
from tests.simulation.l1 import MECHANISM, VERSION, seal
from tests.simulation.plan import LINKS
from tests.simulation.trust import ID

SERVICE: Final = "files"
ANY_CORE: Final = "any"
"""In place of a Core's name: the broker chooses a Core, as a Gateway with sessions does."""

"""Every tenant's one service."""

INNER_SIZE: Final = WRAPPED_SIZE
KEY_SIZE: Final = 16
CANARY: Final = b"canary"
STORE_S: Final = 0.001
"""Seconds that reading a wrapped key takes."""


class SimRing:
    """A tenant's open keys in one generation."""

    def __init__(self, generation: int) -> None:
        self.generation: Final = generation
        self.service_keys: dict[tuple[str, int], ServiceKey] = {}
        self.names: set[Any] = set()

    def __contains__(self, name: object) -> bool:
        return name in self.names


class SimVault:
    """What the production ``KeyLoader`` asks of a vault."""

    def __init__(self, region: str) -> None:
        self._region: Final = region
        self._rings: dict[str, SimRing] = {}

    @property
    def open_tenants(self) -> list[str]:
        return sorted(self._rings)

    def ring(self, tenant: str) -> SimRing | None:
        return self._rings.get(tenant)

    def purge(self, tenant: str) -> int:
        ring = self._rings.pop(tenant, None)
        return len(ring.names) if ring is not None else 0

    def open_root(self, tenant: str, version: int, inner: memoryview, generation: int) -> SimRing:
        if bytes(inner) != inner_root(tenant, self._region):
            raise KcmError(Code.TAMPERED)
        ring = self._rings.get(tenant)
        if ring is None or ring.generation != generation:
            ring = SimRing(generation)
        ring.names.add(RootName(version))
        self._rings[tenant] = ring
        return ring

    def open_service_key(self, ring: SimRing, key: ServiceKey, blob: bytes) -> None:
        if blob != inner_root(f"{key.tenant}/{key.service}", self._region):
            raise KcmError(Code.TAMPERED)
        ring.names.add(ServiceName(key.service, key.version))


class SimStore:
    """Wrapped keys of one region: they are there, for every link they need, and never change."""

    def __init__(
        self, region: str, tenants: list[TenantFacts], other: Mapping[str, str] | None = None
    ) -> None:
        """``other`` names, by link, one to which a tenant may move."""
        also = other or {}
        found = {one.name: [one.link, *filter(None, [also.get(one.link)])] for one in tenants}
        self._roots: Final = {one.name: root_keys(one, region, found[one.name]) for one in tenants}
        self._services: Final = {one.name: service_keys(one.name, region) for one in tenants}

    async def root(self, tenant: str) -> RootKeys | None:
        await asyncio.sleep(STORE_S)
        return self._roots.get(tenant)

    async def service(self, tenant: str, service: str) -> ServiceKeys | None:
        await asyncio.sleep(STORE_S)
        return self._services.get(tenant) if service == SERVICE else None


def inner_root(name: str, region: str) -> bytes:
    """What a wrapped root or service key is, in a world without ciphers."""
    return blake2b(f"{region}/{name}".encode(), digest_size=36).digest() * 2


def root_keys(tenant: TenantFacts, region: str, links: Iterable[str]) -> RootKeys:
    """A tenant's root in a region, wrapped by customers' keys, each with its canary."""
    context = provider_context(tenant.name, region, 1)
    roots = [
        WrappedRoot(
            version=1,
            seal_key_id=ID,
            link=link,
            link_revision=1,
            blob=seal(uri, inner_root(tenant.name, region), context),
            mechanism=MECHANISM,
            key_version=VERSION,
            principal=f"core-{region}",
            canary=seal(uri, CANARY, context),
            canary_digest=sha256(CANARY).digest(),
        )
        for link, uri in ((link, LINKS[link][0]) for link in links)
    ]
    return RootKeys(tenant=tenant.name, region=region, revision=1, current=1, versions=roots)


def service_keys(tenant: str, region: str) -> ServiceKeys:
    """The tenant's one service key in a region."""
    blob = inner_root(f"{tenant}/{SERVICE}", region)
    key = WrappedService(version=1, l2_version=1, state="active", blob=blob)
    return ServiceKeys(
        tenant=tenant, region=region, service=SERVICE, revision=1, current=1, versions=[key]
    )


def wrap_key(region: str, tenant: str, key: bytes) -> bytes:
    """A wrapped data key, as long as a real one."""
    return _tag(region, tenant, key) + key


def unwrap_key(region: str, tenant: str, blob: bytes) -> bytes:
    """Open a wrapped data key; raises ``tampered``."""
    key = blob[-KEY_SIZE:]
    if blob[:-KEY_SIZE] != _tag(region, tenant, key):
        raise KcmError(Code.TAMPERED)
    return key


def _tag(region: str, tenant: str, key: bytes) -> bytes:
    return blake2b(
        f"{region}/{tenant}".encode() + key, digest_size=WRAPPED_SIZE - KEY_SIZE
    ).digest()
