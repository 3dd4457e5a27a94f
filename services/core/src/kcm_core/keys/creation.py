"""Creation of tenant roots and service keys: in both stores before their first use, or not at all.

Every step can be repeated: an existing root or service key is left unchanged, so a repeated request
completes the work after a crash between two steps. If two Cores create the same key at once, one
creates it and the other finds it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from kcm_killswitch.model.replica_state import ReplicaState
from kcm_runtime.host import Host
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import (
    Link,
    RootKeys,
    Service,
    ServiceKeys,
    Tenant,
    WrappedRoot,
    WrappedService,
)

from kcm_core.keys.keyring import ServiceKey
from kcm_core.keys.loader import INNER_SIZE, KeyLoader
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import Vault
from kcm_core.providers.context import provider_context
from kcm_core.providers.state import L1Error
from kcm_core.unsealer.port import UnsealerPort, Wrapped

FIRST: Final = 1
"""The first version of a key, and the first revision of its record."""


class KeyCreator:
    """Creates the first version of roots and service keys."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        store: KeyStore,
        vault: Vault,
        loader: KeyLoader,
        unsealer: UnsealerPort,
        seal_key_id: bytes,
        deadline_s: float,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._random: Final = host.randomness
        self._revocations: Final = replica_state.revocations
        self._store: Final = store
        self._vault: Final = vault
        self._loader: Final = loader
        self._unsealer: Final = unsealer
        self._seal_key_id: Final = seal_key_id
        self._deadline_s: Final = deadline_s

    async def root(self, tenant: Tenant, link: Link) -> None:
        """Create and store the tenant's root in this region, unless it has one.

        The root key wraps the nested blob and, at the same time and under the same context, a
        canary. Raises ``tenant_unavailable`` if the root key fails, ``tenant_killed`` if the tenant
        or the link is killed, and ``conflict`` if the root is under another link.
        """
        if await self._has_root(tenant, link):
            return
        generation = self._revocations.begin(tenant.tenant)
        self._not_killed(tenant, link)
        inner = self._vault.make_root(tenant.tenant, FIRST)
        canary = self._random.public(INNER_SIZE)
        blob = await self._wrap(link, tenant.tenant, inner)
        canary_blob = await self._wrap(link, tenant.tenant, canary)
        if (blob.mechanism, blob.key_version) != (canary_blob.mechanism, canary_blob.key_version):
            raise KcmError(Code.CONFLICT, "the customer's key changed meanwhile; try again")
        self._revocations.still(tenant.tenant, generation)
        self._not_killed(tenant, link)
        root = WrappedRoot(
            version=FIRST,
            seal_key_id=self._seal_key_id,
            link=link.link,
            link_revision=link.revision,
            blob=blob.blob,
            mechanism=blob.mechanism,
            key_version=blob.key_version,
            principal=blob.principal,
            canary=canary_blob.blob,
            canary_digest=sha256(canary).digest(),
        )
        keys = RootKeys(
            tenant=tenant.tenant,
            region=self._me.region,
            revision=FIRST,
            current=FIRST,
            versions=[root],
        )
        try:
            await self._store.put_root(keys)
        except KcmError as error:
            if error.code is Code.CONFLICT and await self._has_root(tenant, link):
                return
            raise
        self._emit(EventType.ROOT_CREATE, tenant=tenant.tenant, count=1, detail=f"link {link.link}")

    async def service(self, service: Service) -> None:
        """Create and store the service's first key under the tenant's root, unless it has one."""
        tenant, name = service.tenant, service.service
        if await self._store.service(tenant, name) is not None:
            return
        ring = await self._loader.ring(tenant)
        roots = await self._store.root(tenant)
        if roots is None:
            raise KcmError(Code.UNKNOWN_TENANT, f"this region has no root of the tenant {tenant}")
        self._revocations.still(tenant, ring.generation)
        key = ServiceKey(tenant, name, FIRST, roots.current)
        blob = self._vault.make_service_key(ring, key)
        wrapped = WrappedService(
            version=key.version, l2_version=key.l2_version, state="active", blob=blob
        )
        keys = ServiceKeys(
            tenant=tenant,
            region=self._me.region,
            service=name,
            revision=FIRST,
            current=key.version,
            versions=[wrapped],
        )
        try:
            await self._store.put_service(keys)
        except KcmError as error:
            if error.code is Code.CONFLICT and await self._store.service(tenant, name) is not None:
                return
            raise
        self._emit(EventType.SERVICE_CREATE, tenant=tenant, service=name, count=1)

    async def _has_root(self, tenant: Tenant, link: Link) -> bool:
        roots = await self._store.root(tenant.tenant)
        if roots is None:
            return False
        current = {one.link for one in roots.versions if one.version == roots.current}
        if link.link not in current:
            raise KcmError(Code.CONFLICT, "the tenant has a root under another link")
        return True

    def _not_killed(self, tenant: Tenant, link: Link) -> None:
        """Raise ``tenant_killed`` for a hold on either: an unregistered tenant has no link."""
        held = self._revocations.active_on
        if held("tenant", tenant.tenant) or held("link", link.link):
            raise KcmError(
                Code.TENANT_KILLED,
                f"a hold is on the tenant {tenant.tenant} or its link {link.link}",
            )

    async def _wrap(self, link: Link, tenant: str, plaintext: bytes | bytearray) -> Wrapped:
        try:
            return await self._unsealer.wrap(
                link.uri,
                plaintext,
                provider_context(tenant, self._me.region, FIRST),
                deadline_s=self._deadline_s,
            )
        except L1Error as error:
            raise KcmError(
                Code.TENANT_UNAVAILABLE,
                f"the customer's key is {error.state.value}: {error.detail}",
            ) from None
