"""Moves a tenant to another root key: only the outer layer of its roots is wrapped again.

There are three steps, each of which is one write. First, the entry of the roots gets, next to each
version that the old key wrapped, the same inner blob wrapped by the new key. Then the tenant's
signed entry names the new link: that is the switch, for every Core of the region at once. Last,
the wrappings of the old key are dropped. After a failure at any point, the link that the tenant's
entry names has what it needs, and the same command continues the work.

The old key has to open what it wrapped, so the move cannot evade a kill. What it opened has to be
the tenant's root in this region; otherwise a false answer of that key would make a Core discard the
true root.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from kcm_killswitch.model.replica_state import ReplicaState
from kcm_runtime.host import Host
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, RootKeys, Tenant, WrappedRoot

from kcm_core.keys.loader import INNER_SIZE
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import Vault
from kcm_core.providers.context import provider_context
from kcm_core.providers.state import L1Error
from kcm_core.unsealer.port import UnsealerPort


class RootRewrapper:
    """Moves tenants of one region."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        store: KeyStore,
        vault: Vault,
        unsealer: UnsealerPort,
        deadline_s: float,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._random: Final = host.randomness
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._store: Final = store
        self._vault: Final = vault
        self._unsealer: Final = unsealer
        self._deadline_s: Final = deadline_s

    async def prepare(self, tenant: Tenant, link: Link) -> None:
        """Ensure that the link, next to the old one, opens every version of the tenant's root.

        Raises ``tenant_killed``, ``tenant_unavailable`` if one of the keys fails, ``tampered`` if
        the old key opens something else, ``conflict`` or ``unavailable``.
        """
        roots = await self._store.root(tenant.tenant)
        here = self._registry.tenant(tenant.tenant)
        if roots is None or here is None or here.link == link.link:
            return
        old = self._registry.link(here.link)
        kept = {one.version: one for one in roots.versions if one.link == here.link}
        if not kept and all(one.link == link.link for one in roots.versions):
            # In a fork, the entry that counts may name a link without wrappings: this ends it.
            self._revocations.raise_if_killed(tenant.tenant)
            self._allowed(link)
            return
        if old is None or not kept:
            raise KcmError(Code.CONFLICT, "the tenant's link is not known here")
        generation = self._revocations.begin(tenant.tenant)
        self._allowed(link)
        moved = [await self._move(tenant.tenant, old, one, link) for one in kept.values()]
        self._revocations.still(tenant.tenant, generation)
        self._allowed(link)
        # Another request may be moving the tenant to a third link: keep its wrappings.
        others = [one for one in roots.versions if one.link != link.link]
        await self._put(roots, [*others, *moved])

    async def finish(self, tenant: Tenant) -> None:
        """Drop the wrappings of all links except the one that the tenant's entry names."""
        roots = await self._store.root(tenant.tenant)
        if roots is None:
            return
        left = [one for one in roots.versions if one.link == tenant.link]
        if left and len(left) < len(roots.versions):
            await self._put(roots, left)
            self._emit(EventType.ROOT_RELINK, tenant=tenant.tenant, detail=f"link {tenant.link}")

    def _allowed(self, link: Link) -> None:
        if self._revocations.active_on("link", link.link):
            raise KcmError(Code.TENANT_KILLED, f"a hold is on the link {link.link}")

    async def _put(self, roots: RootKeys, versions: list[WrappedRoot]) -> None:
        changed = {"revision": roots.revision + 1, "versions": versions}
        await self._store.put_root(roots.model_copy(update=changed))

    async def _move(self, tenant: str, old: Link, root: WrappedRoot, link: Link) -> WrappedRoot:
        place = provider_context(tenant, self._me.region, root.version)
        inner = bytearray(INNER_SIZE)
        canary = self._random.public(INNER_SIZE)
        try:
            await self._unsealer.unwrap_into(
                old.uri, root.blob, place, root.mechanism, memoryview(inner),
                deadline_s=self._deadline_s,
            )  # fmt: skip
            self._vault.check_root(tenant, root.version, memoryview(inner))
            wrapped = await self._unsealer.wrap(link.uri, inner, place, deadline_s=self._deadline_s)
            sealed = await self._unsealer.wrap(link.uri, canary, place, deadline_s=self._deadline_s)
        except L1Error as error:
            raise KcmError(
                Code.TENANT_UNAVAILABLE, f"a customer's key is {error.state.value}: {error.detail}"
            ) from None
        finally:
            inner[:] = bytes(INNER_SIZE)
        if (wrapped.mechanism, wrapped.key_version) != (sealed.mechanism, sealed.key_version):
            raise KcmError(Code.CONFLICT, "the customer's key changed meanwhile; try again")
        return root.model_copy(
            update={
                "link": link.link,
                "link_revision": link.revision,
                "blob": wrapped.blob,
                "mechanism": wrapped.mechanism,
                "key_version": wrapped.key_version,
                "principal": wrapped.principal,
                "canary": sealed.blob,
                "canary_digest": sha256(canary).digest(),
            }
        )
