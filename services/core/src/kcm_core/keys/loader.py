"""Loads keys on demand: a tenant root through the customer's root key, service keys under it.

The generation is read before the first wait and compared after the last one, so an unseal that is
in progress when a kill arrives leaves nothing open. At most one unseal of a tenant root runs at a
time in a generation; other requests for it wait for that one. The number of waiting requests is
limited, so that a root key that hangs does not use up the capacity for other tenants.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kcm_keymem.arena import Arena
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, RootKeys, WrappedRoot

from kcm_core.keys.keyring import Keyring, RootName, ServiceKey, ServiceName
from kcm_core.keys.observer import KeyObserver
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import Vault
from kcm_core.providers.context import provider_context
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.port import UnsealerPort

log = logging.getLogger(__name__)

INNER_SIZE: Final = 72
"""Bytes of a tenant root under the region's seal key."""

WAITING_MAX: Final = 64
"""Requests of one tenant that wait for its root; further ones are answered ``busy``."""

_LOST: Final = (
    "neither the bucket kcm-keys nor the second key store has one; if there was one, restore the "
    "second key store from its backup"
)

_Root = tuple[str, int, int]
"""Tenant, generation, and version of the root (0: the current one)."""


class KeyLoader:
    """Returns open keyrings and service keys, and opens those that are not open."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        store: KeyStore,
        vault: Vault,
        unsealer: UnsealerPort,
        observer: KeyObserver,
        unload: Callable[[str], int],
        deadline_s: float,
    ) -> None:
        """``unload`` overwrites a tenant's keys; ``deadline_s`` is for one call to a root key."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._emit: Final = host.emit
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._admission: Final = replica_state.admission
        self._store: Final = store
        self._vault: Final = vault
        self._unsealer: Final = unsealer
        self._observer: Final = observer
        self._unload: Final = unload
        self._deadline_s: Final = deadline_s
        self._opening: dict[_Root, asyncio.Task[Keyring]] = {}
        self._waiting: Counter[str] = Counter()
        self._roots: dict[str, RootKeys] = {}

    @property
    def waiting(self) -> dict[str, int]:
        """The number of requests that wait for a tenant's root, by tenant."""
        return dict(self._waiting)

    @property
    def opening(self) -> int:
        """The number of unseals of tenant roots that are in progress."""
        return len(self._opening)

    async def ring(self, tenant: str, permit: Permit | None = None) -> Keyring:
        """The tenant's open keyring, of the generation of ``permit``.

        ``permit`` is that of an operation which was admitted with no wait since; without one, the
        operation is admitted here. Raises ``unknown_tenant``, ``tenant_killed``,
        ``tenant_unavailable``, ``busy`` or ``unavailable``.
        """
        now = self._clock.elapsed()
        generation = (permit or self._admission.admit(tenant, now)).generation
        ring = self._vault.ring(tenant)
        if ring is not None and ring.generation == generation:
            if self._admission.live(tenant, now):
                self._admission.used(tenant)
                return ring
            self._unload(tenant)  # its key lease ended: the root key has to be used again
        return await self._once((tenant, generation, 0), lambda: self._open(tenant, generation))

    def is_open(self, tenant: str, service: str, version: int) -> bool:
        """Whether ``service_key`` has the key available, without any call to a key or store."""
        ring = self._vault.ring(tenant)
        if ring is None or ring.generation != self._revocations.generation(tenant):
            return False
        if not self._admission.live(tenant, self._clock.elapsed()):
            return False
        known = ring.service_keys.get((service, version))
        return known is not None and ServiceName(service, known.version) in ring

    async def service_key(
        self, tenant: str, service: str, version: int, permit: Permit | None = None
    ) -> ServiceKey:
        """A service key that is open in the tenant's keyring; ``version`` 0 is the current one.

        Raises as ``ring`` does, and ``unknown_service`` or ``key_destroyed``.
        """
        ring = await self.ring(tenant, permit)
        if self._registry.service(tenant, service) is None:
            raise KcmError(
                Code.UNKNOWN_SERVICE,
                f"the service {service} of {tenant} is not in the region's registry; "
                "if its broker lost data, sign the service again",
            )
        known = ring.service_keys.get((service, version))
        if known is not None and ServiceName(service, known.version) in ring:
            return known
        keys = await self._store.service(tenant, service)
        if keys is None:
            raise KcmError(Code.UNKNOWN_SERVICE, f"the service has no key in this region: {_LOST}")
        wanted = version or keys.current
        for wrapped in keys.versions:
            if wrapped.version == wanted:
                break
        else:
            raise KcmError(Code.KEY_DESTROYED)
        key = ServiceKey(tenant, service, wanted, wrapped.l2_version)
        if RootName(wrapped.l2_version) not in ring:
            root, generation = wrapped.l2_version, ring.generation
            await self._once(
                (tenant, generation, root), lambda: self._unseal(tenant, root, generation)
            )
        self._revocations.still(tenant, ring.generation)
        if ServiceName(service, wanted) not in ring:
            self._vault.open_service_key(ring, key, wrapped.blob)
        ring.service_keys[(service, version)] = key
        return key

    def known(self, tenant: str) -> None:
        """Raise ``unknown_tenant`` unless an operator signed the tenant for this region."""
        self._admission.known(tenant)

    async def _once(
        self, root: _Root, opening: Callable[[], Coroutine[Any, Any, Keyring]]
    ) -> Keyring:
        """Wait for an opening of the root, which begins here unless it is in progress."""
        tenant = root[0]
        if self._waiting[tenant] >= WAITING_MAX:
            raise KcmError(Code.BUSY, "many wait for the tenant's root already")
        task = self._opening.get(root)
        if task is None:
            task = asyncio.get_running_loop().create_task(opening())
            self._opening[root] = task
            task.add_done_callback(lambda task: self._opened(root, task))
        self._waiting[tenant] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    def _opened(self, root: _Root, task: asyncio.Task[Keyring]) -> None:
        self._opening.pop(root, None)
        if not task.cancelled():
            task.exception()  # each waiting caller gets it; it is no fault if none waits

    async def _open(self, tenant: str, generation: int) -> Keyring:
        roots = await self._store.root(tenant)
        if roots is None:
            raise KcmError(Code.UNKNOWN_TENANT, f"the tenant has no root in this region: {_LOST}")
        self._roots[tenant] = roots
        return await self._unseal(tenant, roots.current, generation)

    async def _unseal(self, tenant: str, version: int, generation: int) -> Keyring:
        wrapped = self._wrapped(tenant, version)
        uri = self._link(tenant, wrapped).uri
        ask = self._observer.ask(tenant, wrapped)
        arena = Arena()
        try:
            with arena.use() as view:
                inner = view[:INNER_SIZE]
                opened = await self._unsealer.unwrap_into(
                    uri,
                    wrapped.blob,
                    provider_context(tenant, self._me.region, version),
                    wrapped.mechanism,
                    inner,
                    deadline_s=self._deadline_s,
                )
                self._revocations.still(tenant, generation)
                ring = self._vault.open_root(tenant, version, inner, generation)
                self._observer.answered(ask, L1State.ENABLED, opened.principal)
        except L1Error as error:
            self._observer.answered(ask, error.state)
            self._revocations.raise_if_killed(tenant)  # a refusal has placed a hold by now
            log.warning(
                "the root key did not unwrap the tenant's root: %s",
                error,
                extra=fields(tenant=tenant, link=wrapped.link),
            )
            self._emit(
                EventType.ROOT_OPEN,
                tenant=tenant,
                code=Code.TENANT_UNAVAILABLE,
                detail=error.state.value,
            )
            raise KcmError(
                Code.TENANT_UNAVAILABLE, f"the customer's key is {error.state.value}"
            ) from None
        except KcmError as error:
            if error.code is Code.TAMPERED:  # the key or a store returned false data
                self._observer.answered(ask, L1State.INVALID)
                self._emit(EventType.ROOT_OPEN, tenant=tenant, code=error.code, detail=error.detail)
            raise
        finally:
            arena.purge()
        self._observer.opened(tenant, ask, opened.principal)
        self._emit(EventType.ROOT_OPEN, tenant=tenant, count=1, detail=f"version {version}")
        return ring

    def _wrapped(self, tenant: str, version: int) -> WrappedRoot:
        """A version of the root; of several wrappings, the one of the tenant's current link."""
        registered = self._registry.tenant(tenant)
        found = [one for one in self._roots[tenant].versions if one.version == version]
        if not found:
            raise KcmError(Code.KEY_DESTROYED)
        return next((one for one in found if registered and one.link == registered.link), found[0])

    def _link(self, tenant: str, wrapped: WrappedRoot) -> Link:
        link = self._registry.link(wrapped.link)
        registered = self._registry.tenant(tenant)
        if link is None:
            raise KcmError(
                Code.TENANT_UNAVAILABLE,
                "the link is not in the region's registry; if its broker lost data, link again",
            )
        if registered is None or registered.link != wrapped.link:
            raise KcmError(Code.TENANT_UNAVAILABLE, "the tenant's root is wrapped by another link")
        return link
