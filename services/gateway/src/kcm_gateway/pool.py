"""A pool of data keys that are wrapped before they are needed.

Encrypting asks nobody: it takes a key and the blob that the Core made of it. The pool follows the
load: it aims to hold what was used during the last ``AHEAD_S`` seconds, between one batch and the
configured maximum, and starts refilling when it has less. The busier it is, the more keys a refill
brings: the channel costs per request, and a pool with little to do shall hold few keys.

Its keys end with the lease of the reply that brought them, counted from the sending of that
request, and are of one L3 version each; when it has ended they are wiped, whether anybody asks for
keys or not.

A key leaves the pool once. Whether it was used or not, it is never given back.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from kcm_bus.clock import Clock, Randomness
from kcm_crypto.arena import Keys
from kcm_crypto.memory import wipe
from kcm_crypto.xaes import WRAPPED_SIZE
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from kcm_gateway.core_client import CoreClient, Lease
from kcm_gateway.guard import Guard
from kcm_gateway.keyblock import Blocks, KeyBlock

BATCH: Final = 256
"""Keys of a refill at light load, and what a pool holds at least; larger ones are a multiple."""

REFILLS_AHEAD: Final = 4
"""Refills that make up what a busy pool aims to hold."""

AHEAD_S: Final = 0.25
"""Seconds of load that the pool holds ready: many times what a refill takes."""

REFILLS_MAX: Final = 4
"""Refills of one pool under way at once: enough to keep the Core busy, and bounded."""

_SMOOTHING: Final = 0.3
"""Weight of the newest measurement of the load (exponential moving average)."""

_WINDOW_S: Final = 0.05
"""Seconds over which the load is measured."""

_EXPIRE_MIN_S: Final = 0.05
"""Seconds between two looks for keys whose lease has ended, at least."""

_WRAPPED: Final = struct.Struct(f"{WRAPPED_SIZE}s")


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive keys of a block and their wrapped forms, for one operation."""

    block: KeyBlock
    start: int
    count: int
    wrapped: bytes
    l3_version: int
    until: float
    """When the keys' lease ends, on the elapsed clock."""

    def use(self) -> AbstractContextManager[Keys]:
        """Lend the keys; raises ``Purged``, on leaving too."""
        return self.block.use(self.start, self.count)

    def blobs(self) -> Iterator[tuple[bytes]]:
        """The wrapped form of each key, from ``start`` on."""
        at = self.start * WRAPPED_SIZE
        end = at + self.count * WRAPPED_SIZE
        return _WRAPPED.iter_unpack(memoryview(self.wrapped)[at:end])


@dataclass(slots=True)
class _Batch:
    block: KeyBlock
    wrapped: bytes
    lease: Lease
    used: int = 0

    @property
    def left(self) -> int:
        return self.block.count - self.used


class KeyPool:
    """Pre-wrapped keys of one service."""

    def __init__(
        self,
        tenant: str,
        service: str,
        *,
        core: CoreClient,
        guard: Guard,
        blocks: Blocks,
        clock: Clock,
        randomness: Randomness,
        keys_max: int,
    ) -> None:
        self._tenant: Final = tenant
        self._service: Final = service
        self._core: Final = core
        self._guard: Final = guard
        self._blocks: Final = blocks
        self._clock: Final = clock
        self._random: Final = randomness
        self._keys_max: Final = keys_max
        self._batches: deque[_Batch] = deque()
        self._refills: dict[asyncio.Task[None], int] = {}
        self._available = 0
        self._rate = 0.0
        self._taken = 0
        self._since = clock.elapsed()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether there is neither a key nor a refill under way."""
        return not self._batches and not self._refills

    @property
    def available(self) -> int:
        """Keys ready for use."""
        return self._available

    @property
    def target(self) -> int:
        """Keys that the pool aims to hold at the present load."""
        return min(max(BATCH, int(self._rate * AHEAD_S)), self._keys_max)

    async def take(self, count: int) -> list[Segment]:
        """``count`` keys, in as few segments as possible; raises what a refill raises.

        Every segment has to be given to ``done``.
        """
        self._measure(count)
        segments: list[Segment] = []
        try:
            while count:
                self._drop_expired()
                if not self._batches:
                    await self._wait_for_refill(count)
                    continue
                segment = self._cut(count)
                segments.append(segment)
                count -= segment.count
            now = self._clock.elapsed()
            if any(now >= segment.until for segment in segments):
                raise KcmError(Code.DEADLINE_EXCEEDED, "the keys' lease ended meanwhile")
        except BaseException:
            self.done(segments)
            raise
        self._refill_ahead()
        return segments

    def done(self, segments: list[Segment]) -> None:
        """Wipe the keys of segments, used or not."""
        for segment in segments:
            if not segment.block.purged:
                with segment.use() as keys:
                    wipe(keys.view)
            self._blocks.release(segment.block)

    def clear(self) -> None:
        """Forget every key and every refill under way."""
        for task in self._refills:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        while self._batches:
            self._blocks.release(self._batches.popleft().block)
        self._available = 0

    def _cut(self, count: int) -> Segment:
        batch = self._batches[0]
        size = min(count, batch.left)
        segment = Segment(
            self._blocks.hold(batch.block),
            batch.used,
            size,
            batch.wrapped,
            batch.lease.l3_version,
            batch.lease.until,
        )
        batch.used += size
        self._available -= size
        if not batch.left:
            self._blocks.release(self._batches.popleft().block)
        return segment

    def _drop_expired(self) -> None:
        now = self._clock.elapsed()
        while self._batches and (
            now >= self._batches[0].lease.until or self._batches[0].block.purged
        ):
            batch = self._batches.popleft()
            self._available -= batch.left
            self._blocks.release(batch.block)

    def _watch(self) -> None:
        if self._timer is None and self._batches:
            delay = max(self._batches[0].lease.until - self._clock.elapsed(), _EXPIRE_MIN_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self.expire)

    def expire(self) -> None:
        """Wipe the keys whose lease has ended."""
        self._timer = None
        self._drop_expired()
        self._watch()

    def _measure(self, count: int) -> None:
        self._taken += count
        now = self._clock.elapsed()
        spent = now - self._since
        if spent >= _WINDOW_S:
            self._rate += _SMOOTHING * (self._taken / spent - self._rate)
            self._taken, self._since = 0, now

    def _refill_ahead(self) -> None:
        target = self.target
        expected = self._available + sum(self._refills.values())
        while expected < target and len(self._refills) < REFILLS_MAX:
            expected += self._start_refill(target // REFILLS_AHEAD)

    async def _wait_for_refill(self, count: int) -> None:
        if not self._refills:
            self._start_refill(max(count, self.target // REFILLS_AHEAD))
        done, _ = await asyncio.wait(self._refills, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():
                raise KcmError(Code.TENANT_KILLED)
            error = task.exception()
            if isinstance(error, KcmError) and not self._batches:
                raise KcmError(error.code, error.detail)  # each waiter has one of its own
            if error is not None and not self._batches:
                raise error

    def _start_refill(self, count: int) -> int:
        """Ask for ``count`` keys in whole batches, within what a request may bring."""
        size = min(max(1, -(-count // BATCH)) * BATCH, limits.KEYS_MAX)
        task = asyncio.get_running_loop().create_task(self._refill(size))
        self._refills[task] = size
        task.add_done_callback(self._refilled)
        return size

    def _refilled(self, task: asyncio.Task[None]) -> None:
        self._refills.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever waits for keys sees it; nobody waiting is no fault

    async def _refill(self, count: int) -> None:
        permit = self._guard.begin(self._tenant)
        block = self._blocks.make(self._tenant, count)
        try:
            with block.use() as keys:
                self._random.fill(keys.view)
                lease, wrapped = await self._core.wrap(
                    self._tenant, self._service, "record", keys.view
                )
            self._guard.still(permit)
        except BaseException:
            self._blocks.release(block)
            raise
        self._batches.append(_Batch(block, wrapped, lease))
        self._available += count
        self._watch()
