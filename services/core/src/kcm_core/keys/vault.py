"""The vault: the open keys of each tenant, and the cipher calls with them. Entirely synchronous.

Nothing here waits, so nothing can come between the check of a generation and the use of a key. A
wrap binds every key to the place where it belongs:

- L2, inner layer, under the region's seal key: ``ctx("kcm/v1/l2", tenant, region, version,
  seal_key_id)``
- L3 under L2: ``ctx("kcm/v1/l3", tenant, region, service, l3_version, l2_version)``
- L4 under L3: ``ctx("kcm/v1/l4", purpose, tenant, region, service, l3_version)``
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena, Keys
from kcm_keymem.random import KeyRandomness
from kcm_runtime.files.secret_file import read_secret
from kcm_schemas import labels
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import ctx
from kcm_schemas.limits import KEY_SIZE, NONCE_SIZE
from kcm_sealing import xaes

from kcm_core.keys.keyring import Keyring, RootName, ServiceKey, ServiceName

AADS_MAX: Final = 1024
"""Encoded contexts of data keys that are cached: to encode one costs as much as some wraps."""


class SealKey:
    """The region's own key, which wraps the inner layer of every tenant root."""

    def __init__(self, key_id: bytes, path: str) -> None:
        """Read the key directly into locked memory; raises ``SecretFileError``."""
        self.id: Final = key_id
        self._arena: Final = Arena()
        with self._arena.use() as view:
            read_secret(path, view[:KEY_SIZE])

    def wrap(self, root: memoryview, aad: bytes, nonce: bytes) -> bytearray:
        """The inner blob of a tenant root, 72 bytes."""
        with self._arena.use() as view:
            return xaes.seal(view[:KEY_SIZE], root, aad, nonce, _scratch(view))

    def open_into(self, inner: memoryview, aad: bytes, out: memoryview) -> None:
        """Open an inner blob; raises ``InvalidTag`` with ``out`` wiped."""
        with self._arena.use() as view:
            xaes.open_into(view[:KEY_SIZE], inner, aad, out, _scratch(view))

    def close(self) -> None:
        """Wipe the key; later uses raise ``Purged``. Idempotent."""
        self._arena.purge()


def _scratch(view: memoryview) -> memoryview:
    return view[256 : 256 + xaes.SCRATCH_SIZE]


class Vault:
    """Open keyrings by tenant."""

    def __init__(self, region: str, seal_key: SealKey, randomness: KeyRandomness) -> None:
        self._region: Final = region
        self._seal: Final = seal_key
        self._random: Final = randomness
        self._rings: dict[str, Keyring] = {}

    @property
    def open_tenants(self) -> list[str]:
        """Tenants whose root is open."""
        return sorted(self._rings)

    def ring(self, tenant: str) -> Keyring | None:
        """A tenant's open keys."""
        return self._rings.get(tenant)

    def purge(self, tenant: str) -> int:
        """Wipe all open keys of a tenant; returns the number of keys."""
        ring = self._rings.pop(tenant, None)
        return ring.purge() if ring is not None else 0

    def close(self) -> None:
        """Wipe every tenant's keys and the seal key: nothing can be opened any more. Idempotent."""
        for tenant in self.open_tenants:
            self.purge(tenant)
        self._seal.close()

    def make_root(self, tenant: str, version: int) -> bytearray:
        """A new tenant root as its inner blob. It is not open afterwards."""
        arena = Arena()
        try:
            with arena.use() as view:
                root = view[:KEY_SIZE]
                self._random.fill(root)
                return self._seal.wrap(
                    root, self._root_aad(tenant, version), self._random.public(NONCE_SIZE)
                )
        finally:
            arena.purge()

    def open_root(self, tenant: str, version: int, inner: memoryview, generation: int) -> Keyring:
        """Open an inner blob into the tenant's keyring of this generation.

        Raises ``tampered`` if it belongs to another region, tenant or version.
        """
        ring = self._rings.get(tenant)
        if ring is None or ring.generation != generation:
            self.purge(tenant)
            ring = Keyring(generation)
        name = RootName(version)
        try:
            with ring.use() as keys:
                if name not in ring:
                    with keys.place(name) as place:
                        self._seal.open_into(inner, self._root_aad(tenant, version), place)
        except InvalidTag:
            if tenant not in self._rings:
                ring.purge()
            raise KcmError(Code.TAMPERED, "the tenant root does not open in this region") from None
        self._rings[tenant] = ring
        return ring

    def check_root(self, tenant: str, version: int, inner: memoryview) -> None:
        """Raise ``tampered`` unless an inner blob opens. Nothing stays open."""
        arena = Arena()
        try:
            with arena.use() as view:
                self._seal.open_into(inner, self._root_aad(tenant, version), view[:KEY_SIZE])
        except InvalidTag:
            raise KcmError(Code.TAMPERED, "the tenant root does not open in this region") from None
        finally:
            arena.purge()

    def make_service_key(self, ring: Keyring, key: ServiceKey) -> bytes:
        """A new service key, wrapped. It is not open afterwards."""
        name = ServiceName(key.service, key.version)
        with ring.use() as keys:
            root = keys.key(RootName(key.l2_version))
            with keys.place(name) as place:
                self._random.fill(place)
                blob = xaes.seal(
                    root,
                    place,
                    self._service_aad(key),
                    self._random.public(NONCE_SIZE),
                    keys.scratch,
                )
            keys.forget(name)
        return bytes(blob)

    def open_service_key(self, ring: Keyring, key: ServiceKey, blob: bytes) -> None:
        """Open a wrapped service key into the keyring; raises ``tampered``."""
        try:
            with ring.use() as keys:
                root = keys.key(RootName(key.l2_version))
                with keys.place(ServiceName(key.service, key.version)) as place:
                    xaes.open_into(root, blob, self._service_aad(key), place, keys.scratch)
        except InvalidTag:
            raise KcmError(Code.TAMPERED, "the service key does not open under its root") from None

    def wrap(
        self, ring: Keyring, key: ServiceKey, purpose: str, keys4: Keys, out: memoryview
    ) -> None:
        """Wrap n data keys into ``out`` (n times 72 bytes).

        Raises ``malformed`` for a key of all zeros.
        """
        nonce = self._random.public(NONCE_SIZE)
        with ring.use() as keys:
            l3 = keys.key(ServiceName(key.service, key.version))
            try:
                xaes.wrap_batch(l3, keys4, self._data_aad(key, purpose), nonce, out, keys.scratch)
            except ValueError:
                raise KcmError(Code.MALFORMED, "a data key of all zeros") from None

    def unwrap(
        self, ring: Keyring, key: ServiceKey, purpose: str, blobs: memoryview, out: Keys
    ) -> list[int]:
        """Unwrap data keys into ``out``; returns the positions that do not authenticate."""
        with ring.use() as keys:
            l3 = keys.key(ServiceName(key.service, key.version))
            return xaes.unwrap_batch(l3, blobs, self._data_aad(key, purpose), out, keys.scratch)

    def _root_aad(self, tenant: str, version: int) -> bytes:
        return ctx(labels.L2, tenant, self._region, version, self._seal.id)

    def _service_aad(self, key: ServiceKey) -> bytes:
        return ctx(labels.L3, key.tenant, self._region, key.service, key.version, key.l2_version)

    def _data_aad(self, key: ServiceKey, purpose: str) -> bytes:
        return _l4(purpose, key.tenant, self._region, key.service, key.version)


@lru_cache(AADS_MAX)
def _l4(purpose: str, tenant: str, region: str, service: str, version: int) -> bytes:
    return ctx(labels.L4, purpose, tenant, region, service, version)
