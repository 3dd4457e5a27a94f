"""An optional cache of opened data keys, off unless it is configured.

It trades the promise that every key is asked for against fewer requests: a key stays at most as
long as the lease of the reply that brought it, asked for or not, and goes with every purge of its
tenant.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from kcm_crypto.arena import Keys
from kcm_crypto.memory import wipe
from kcm_schemas.codes import KcmError

from kcm_gateway.keyblock import Blocks, KeyBlock

CacheKey = tuple[str, bytes]
"""Service; L3 version (4 bytes) and wrapped key (72 bytes)."""


@dataclass(slots=True)
class _Tenant:
    block: KeyBlock
    slots: OrderedDict[CacheKey, tuple[int, float]]
    free: list[int]


class KeyCache:
    """Opened keys by tenant; the one not used for longest makes room."""

    def __init__(self, blocks: Blocks, keys_max: int) -> None:
        self._blocks: Final = blocks
        self._keys_max: Final = keys_max
        self._tenants: dict[str, _Tenant] = {}

    @property
    def enabled(self) -> bool:
        """Whether anything is kept at all."""
        return self._keys_max > 0

    def get(self, tenant: str, key: CacheKey, now: float, out: memoryview) -> float | None:
        """Copy a key into ``out`` and return when its lease ends, or ``None``."""
        known = self._tenants.get(tenant)
        if known is None or key not in known.slots:
            return None
        slot, until = known.slots[key]
        with known.block.use() as keys:
            if now >= until:
                self._drop(known, key, keys)
                return None
            known.slots.move_to_end(key)
            out[:] = keys.each[slot]
        return until

    def put(self, tenant: str, key: CacheKey, until: float, plain: memoryview) -> None:
        """Keep a key until its lease ends."""
        if not self._keys_max:
            return
        known = self._tenants.get(tenant)
        if known is None:
            try:
                block = self._blocks.make(tenant, self._keys_max)
            except KcmError:
                return  # the tenant holds as much as it may: a cache is a convenience
            known = _Tenant(block, OrderedDict(), list(range(self._keys_max)))
            self._tenants[tenant] = known
        if key in known.slots:
            return
        with known.block.use() as keys:
            if not known.free:
                self._drop(known, next(iter(known.slots)), keys)
            slot = known.free.pop()
            keys.each[slot][:] = plain
            known.slots[key] = (slot, until)

    def purge(self, tenant: str) -> None:
        """Forget a tenant."""
        known = self._tenants.pop(tenant, None)
        if known is not None:
            self._blocks.release(known.block)

    def sweep(self, tenant: str, now: float) -> float | None:
        """Wipe the keys whose lease has ended; returns when the next one ends."""
        known = self._tenants.get(tenant)
        if known is None or known.block.purged:
            return None
        with known.block.use() as keys:
            for key in [key for key, (_, until) in known.slots.items() if now >= until]:
                self._drop(known, key, keys)
        return min((until for _, until in known.slots.values()), default=None)

    @staticmethod
    def _drop(known: _Tenant, key: CacheKey, keys: Keys) -> None:
        slot, _ = known.slots.pop(key)
        wipe(keys.each[slot])
        known.free.append(slot)
