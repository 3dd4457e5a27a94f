"""A pool's stock: batches of keys with their wrapped forms, ordered by the end of their leases.

The batch that ends first is used first. This module neither waits nor reads a clock.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from kcm_keymem.arena import Keys
from kcm_schemas.limits import WRAPPED_SIZE

from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_gateway.keys.lease import Lease

_WRAPPED: Final = struct.Struct(f"{WRAPPED_SIZE}s")


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive keys of a block and their wrapped forms, for one operation."""

    block: KeyBlock
    start: int
    count: int
    wrapped: bytes
    lease: Lease

    def use(self) -> AbstractContextManager[Keys]:
        """Lend the keys; raises ``Purged``, on leaving too."""
        return self.block.use(self.start, self.count)

    def blobs(self) -> Iterator[tuple[bytes]]:
        """Return the wrapped form of each key, from ``start`` on."""
        at = self.start * WRAPPED_SIZE
        end = at + self.count * WRAPPED_SIZE
        return _WRAPPED.iter_unpack(memoryview(self.wrapped)[at:end])


@dataclass(slots=True, eq=False)
class _Batch:
    block: KeyBlock
    wrapped: bytes
    lease: Lease
    begin_until: float = field(init=False)
    young_until: float = field(init=False)
    used: int = 0

    def __post_init__(self) -> None:
        self.begin_until = self.lease.begin_until
        self.young_until = self.lease.young_until

    @property
    def left(self) -> int:
        return self.block.count - self.used


class Stock:
    """Batches of one service, each held until it is used up or given up."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks: Final = blocks
        self._batches: list[_Batch] = []
        self._available = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def available(self) -> int:
        """Keys that were not taken yet."""
        return self._available

    @property
    def begin_until(self) -> float | None:
        """When the batch that ends first must be given up; ``None`` without a batch."""
        return self._batches[0].begin_until if self._batches else None

    def add(self, block: KeyBlock, wrapped: bytes, lease: Lease) -> None:
        """Take over a block of keys and their wrapped forms."""
        batch = _Batch(block, wrapped, lease)
        insort(self._batches, batch, key=lambda one: one.begin_until)
        self._available += batch.left

    def young(self, now: float) -> int:
        """Return the number of keys whose lease is not half over."""
        count = self._available
        for batch in self._batches:
            if now < batch.young_until:
                break  # later batches end later
            count -= batch.left
        return count

    def cut(self, count: int, lease_until: float) -> Segment | None:
        """Take up to ``count`` keys whose lease lasts until ``lease_until``; each leaves once."""
        for batch in self._batches:
            if batch.lease.until >= lease_until:
                break
        else:
            return None
        size = min(count, batch.left)
        block = self._blocks.hold(batch.block)
        segment = Segment(block, batch.used, size, batch.wrapped, batch.lease)
        batch.used += size
        self._available -= size
        if not batch.left:
            self._batches.remove(batch)
            self._blocks.release(batch.block)
        return segment

    def give_up(self, now: float) -> None:
        """Wipe the keys whose reserve has begun."""
        while self._batches and (
            now >= self._batches[0].begin_until or self._batches[0].block.purged
        ):
            self._drop_first()

    def trim(self, now: float, most: int) -> None:
        """Wipe batches that are not young, while there are more than ``most`` keys."""
        while self._batches and self._available > most and now >= self._batches[0].young_until:
            self._drop_first()

    def clear(self) -> None:
        """Wipe every key that has no other holder."""
        while self._batches:
            self._drop_first()

    def _drop_first(self) -> None:
        batch = self._batches.pop(0)
        self._available -= batch.left
        self._blocks.release(batch.block)
