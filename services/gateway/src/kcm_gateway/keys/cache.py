"""An optional cache of unwrapped data keys, off unless it is configured.

It gives up the guarantee that a Core is asked for every key, and saves requests: a key stays until
the reserve of its lease begins (``kcm_gateway.keys.lease``), and is wiped by every purge of its
tenant.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from kcm_keymem.arena import Keys
from kcm_schemas.codes import KcmError
from kcm_sealing.memory import wipe

from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_gateway.keys.lease import Lease

CacheKey = tuple[str, bytes]
"""Service; L3 version (4 bytes) and wrapped key (72 bytes)."""


@dataclass(slots=True)
class _Tenant:
    block: KeyBlock
    slots: OrderedDict[CacheKey, tuple[int, Lease]]
    free: list[int]


class KeyCache:
    """Unwrapped keys by tenant; the least recently used key makes room.

    The keys are in locked memory, so an eviction wipes and reuses a slot.
    """

    def __init__(self, blocks: Blocks, keys_max: int) -> None:
        self._blocks: Final = blocks
        self._keys_max: Final = keys_max
        self._tenants: dict[str, _Tenant] = {}

    @property
    def enabled(self) -> bool:
        """Whether any key is kept."""
        return self._keys_max > 0

    @property
    def count(self) -> int:
        """The keys that are kept, of all tenants."""
        return sum(len(known.slots) for known in self._tenants.values())

    def get(
        self, tenant: str, key: CacheKey, now: float, lease_until: float, out: memoryview
    ) -> Lease | None:
        """Copy a key into ``out`` and return its lease, or ``None``.

        It is ``None`` also if the lease is in its reserve or ends before ``lease_until``.
        """
        known = self._tenants.get(tenant)
        if known is None or key not in known.slots:
            return None
        slot, lease = known.slots[key]
        with known.block.use() as keys:
            if now >= lease.begin_until:
                self._drop(known, key, keys)
                return None
            if lease.until < lease_until:
                return None
            known.slots.move_to_end(key)
            out[:] = keys.each[slot]
        return lease

    def put(self, tenant: str, key: CacheKey, lease: Lease, plain: memoryview) -> None:
        """Keep a key; of two leases of one key the longer one counts."""
        if not self._keys_max:
            return
        known = self._tenants.get(tenant)
        if known is None:
            try:
                block = self._blocks.make(tenant, self._keys_max)
            except KcmError:
                return  # the tenant is at its bound: a cache is optional
            known = _Tenant(block, OrderedDict(), list(range(self._keys_max)))
            self._tenants[tenant] = known
        if key in known.slots:
            slot, old = known.slots[key]
            if lease.begin_until > old.begin_until:
                known.slots[key] = (slot, lease)
            return
        with known.block.use() as keys:
            if not known.free:
                self._drop(known, next(iter(known.slots)), keys)
            slot = known.free.pop()
            keys.each[slot][:] = plain
            known.slots[key] = (slot, lease)

    def purge(self, tenant: str) -> None:
        """Forget all keys of a tenant."""
        known = self._tenants.pop(tenant, None)
        if known is not None:
            self._blocks.release(known.block)

    def sweep(self, tenant: str, now: float) -> float | None:
        """Wipe keys whose reserve has begun; returns when the next reserve begins."""
        known = self._tenants.get(tenant)
        if known is None or known.block.purged:
            return None
        with known.block.use() as keys:
            for key in [key for key, (_, one) in known.slots.items() if now >= one.begin_until]:
                self._drop(known, key, keys)
        return min((one.begin_until for _, one in known.slots.values()), default=None)

    @staticmethod
    def _drop(known: _Tenant, key: CacheKey, keys: Keys) -> None:
        slot, _ = known.slots.pop(key)
        wipe(keys.each[slot])
        known.free.append(slot)
