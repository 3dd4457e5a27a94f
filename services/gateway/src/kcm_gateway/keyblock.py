"""Blocks of data keys in locked memory, shared by whoever works with them, wiped by the last.

Every block is known by its tenant, so a purge wipes the keys under everybody's hands, and leaving a
use after that raises ``Purged``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from kcm_crypto.arena import KEY_SIZE, Arena, Keys, ScratchPool


class KeyBlock:
    """``count`` keys of 32 bytes each, made and released by ``Blocks``."""

    __slots__ = ("arena", "count", "holders", "tenant")

    def __init__(self, tenant: str, arena: Arena, count: int) -> None:
        self.tenant: Final = tenant
        self.arena: Final = arena
        self.count: Final = count
        self.holders = 1

    def use(self, start: int = 0, count: int | None = None) -> AbstractContextManager[Keys]:
        """Lend ``count`` keys from ``start`` on, or all; raises ``Purged``, on leaving too."""
        return self.arena.use_keys(self.count - start if count is None else count, start)

    @property
    def purged(self) -> bool:
        """Whether the keys are gone."""
        return self.arena.purged


class Blocks:
    """Every block of every tenant."""

    def __init__(self) -> None:
        self._pool: Final = ScratchPool()
        self._live: dict[str, set[KeyBlock]] = {}

    @property
    def tenants(self) -> list[str]:
        """Whose keys there are."""
        return list(self._live)

    def make(self, tenant: str, count: int) -> KeyBlock:
        """A block of zeros with one holder."""
        block = KeyBlock(tenant, self._pool.take(count * KEY_SIZE), count)
        self._live.setdefault(tenant, set()).add(block)
        return block

    def hold(self, block: KeyBlock) -> KeyBlock:
        """One more holder."""
        block.holders += 1
        return block

    def release(self, block: KeyBlock) -> None:
        """One holder less; the last one wipes the keys."""
        block.holders -= 1
        if block.holders == 0:
            live = self._live.get(block.tenant)
            if live is not None:
                live.discard(block)
                if not live:
                    del self._live[block.tenant]
            self._pool.give_back(block.arena)

    def purge(self, tenant: str) -> int:
        """Wipe everything of a tenant; returns how many keys there were."""
        blocks = self._live.pop(tenant, set())
        for block in blocks:
            block.arena.purge()
        return sum(block.count for block in blocks)
