"""A pool of data keys that are wrapped before they are needed.

Encryption needs no request: it takes a key and the blob that the Core made of it. The pool follows
the load: it aims to hold the number of keys of the last ``AHEAD_S`` seconds, between one batch and
the configured maximum, and starts a refill when it has less. The higher the load, the larger a
refill: the channel costs per request, and a pool with little load should hold few keys.

Age matters as well as number. Keys whose lease is half over are not counted, so that a service that
uses one key a second has young keys before the old ones end. No key is returned with less than the
reserve of its lease (``kcm_gateway.keys.lease``). Such keys are wiped, requested or not.

Keys end with the lease of the reply that brought them, counted from the sending of that request,
and each batch is of one L3 version. A key leaves the pool once and never returns to it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kcm_keymem.arena import Purged
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.control_lease import EXPIRED
from kcm_runtime.clock import Clock
from kcm_schemas import limits
from kcm_schemas.codes import KcmError
from kcm_sealing.memory import wipe

from kcm_gateway.core_client import CoreClient
from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.lease import too_short
from kcm_gateway.keys.recheck import Recheck
from kcm_gateway.keys.stock import Segment, Stock

BATCH: Final = 256
"""Keys of a refill at low load, and the least that a pool holds; larger refills are a multiple."""

REFILLS_AHEAD: Final = 4
"""Refills that together make the target of a busy pool."""

AHEAD_S: Final = 0.25
"""Seconds of load for which a pool has keys: many times the duration of a refill."""

REFILLS_MAX: Final = 4
"""Refills of one pool in progress at once: enough to keep the Core busy, and bounded."""

_SMOOTHING: Final = 0.3
"""Weight of the latest measurement of the load (exponential moving average)."""

_WINDOW_S: Final = 0.05
"""Seconds over which the load is measured."""

_EXPIRE_MIN_S: Final = 0.05
"""The least seconds between two sweeps for keys that are too old."""


class KeyPool:
    """Pre-wrapped keys of one service."""

    def __init__(
        self,
        tenant: str,
        service: str,
        *,
        core: CoreClient,
        recheck: Recheck,
        blocks: Blocks,
        clock: Clock,
        randomness: KeyRandomness,
        keys_max: int,
    ) -> None:
        self._tenant: Final = tenant
        self._service: Final = service
        self._core: Final = core
        self._recheck: Final = recheck
        self._blocks: Final = blocks
        self._clock: Final = clock
        self._random: Final = randomness
        self._keys_max: Final = keys_max
        self._stock: Final = Stock(blocks)
        self._refills: dict[asyncio.Task[None], int] = {}
        self._cleared = 0
        self._rate = 0.0
        self._taken = 0
        self._since = clock.elapsed()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether there is neither a key nor a refill in progress."""
        return not self._stock and not self._refills

    @property
    def available(self) -> int:
        """Keys that are ready for use."""
        return self._stock.available

    @property
    def refills(self) -> int:
        """Refills in progress, each of which is a request to a Core."""
        return len(self._refills)

    @property
    def target(self) -> int:
        """The number of keys for the present load."""
        return min(max(BATCH, int(self._rate * AHEAD_S)), self._keys_max)

    async def take(self, permit: Permit, count: int, lease_until: float = EXPIRED) -> list[Segment]:
        """Return ``count`` keys in as few segments as possible; raises the errors of a refill.

        None has less than the reserve of its lease left. Keys whose lease outlasts ``lease_until``
        are preferred; if there are none, the call waits for one refill. A refill that the call
        starts, now or ahead of need, has its permit. The caller passes every segment to ``done``.
        """
        self._measure(count)
        segments: list[Segment] = []
        try:
            await self._collect(permit, segments, count, lease_until)
            now = self._clock.elapsed()
            if self._discard_old(segments, now):  # a large request may have waited for long
                missing = count - sum(segment.count for segment in segments)
                await self._collect(permit, segments, missing, lease_until)
                now = self._clock.elapsed()
                if self._discard_old(segments, now):
                    raise too_short()
        except BaseException:
            self.done(segments)
            raise
        self._refill_ahead(permit, now)
        return segments

    def done(self, segments: list[Segment]) -> None:
        """Wipe the keys of segments, used or not."""
        for segment in segments:
            if not segment.block.purged:
                with segment.use() as keys:
                    wipe(keys.view)
            self._blocks.release(segment.block)

    def clear(self) -> None:
        """Forget every key and every refill in progress; waiting calls fail."""
        self._cleared += 1
        for task in self._refills:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._stock.clear()

    def expire(self) -> None:
        """Wipe the keys whose reserve has begun."""
        self._timer = None
        self._stock.give_up(self._clock.elapsed())
        self._watch()

    async def _collect(
        self, permit: Permit, segments: list[Segment], count: int, lease_until: float
    ) -> None:
        """Take ``count`` keys, waiting for refills while there are too few."""
        waited = False
        while count:
            self._stock.give_up(self._clock.elapsed())
            segment = self._stock.cut(count, lease_until)
            if segment is None and waited:
                segment = self._stock.cut(count, EXPIRED)
            if segment is None:
                await self._wait_for_refill(permit, count)
                waited = True
                continue
            segments.append(segment)
            count -= segment.count

    def _discard_old(self, segments: list[Segment], now: float) -> bool:
        """Wipe keys whose reserve began during the wait; returns whether there were any."""
        old = [segment for segment in segments if now >= segment.lease.begin_until]
        if old:
            segments[:] = [segment for segment in segments if segment not in old]
            self.done(old)
        return bool(old)

    def _watch(self) -> None:
        """Schedule the next sweep for when the first reserve begins, which may be sooner now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._stock.begin_until
        if end is not None:
            delay = max(end - self._clock.elapsed(), _EXPIRE_MIN_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self.expire)

    def _measure(self, count: int) -> None:
        self._taken += count
        now = self._clock.elapsed()
        spent = now - self._since
        if spent >= _WINDOW_S:
            self._rate += _SMOOTHING * (self._taken / spent - self._rate)
            self._taken, self._since = 0, now

    def _refill_ahead(self, permit: Permit, now: float) -> None:
        target = self.target
        expected = self._stock.young(now) + sum(self._refills.values())
        while expected < target and len(self._refills) < REFILLS_MAX:
            expected += self._start_refill(permit, target // REFILLS_AHEAD)

    async def _wait_for_refill(self, permit: Permit, count: int) -> None:
        if not self._refills:
            self._start_refill(permit, max(count, self.target // REFILLS_AHEAD))
        cleared = self._cleared
        done, _ = await asyncio.wait(self._refills, return_when=asyncio.FIRST_COMPLETED)
        if cleared != self._cleared or any(task.cancelled() for task in done):
            # Also if the refill had just finished: the tenant has another pool now.
            raise Purged
        for task in done:
            error = task.exception()
            if isinstance(error, KcmError) and not self._stock:
                raise KcmError(error.code, error.detail)  # each waiting call has its own
            if error is not None and not self._stock:
                raise error

    def _start_refill(self, permit: Permit, count: int) -> int:
        """Request ``count`` keys in whole batches, within the bound of one request."""
        size = min(max(1, -(-count // BATCH)) * BATCH, limits.KEYS_MAX)
        task = asyncio.get_running_loop().create_task(self._refill(permit, size))
        self._refills[task] = size
        task.add_done_callback(self._refilled)
        return size

    def _refilled(self, task: asyncio.Task[None]) -> None:
        self._refills.pop(task, None)
        if not task.cancelled():
            task.exception()  # waiting calls see it; without one it is not an error

    async def _refill(self, permit: Permit, count: int) -> None:
        self._recheck(permit)  # the operation may have waited since it was admitted
        block = self._blocks.make(self._tenant, count)
        try:
            with block.use() as keys:
                self._random.fill(keys.view)
                lease, wrapped = await self._core.wrap(
                    self._tenant, self._service, "record", keys.view
                )
            self._recheck(permit)
            now = self._clock.elapsed()
            if lease.too_short(now):
                raise too_short()
        except BaseException:
            self._blocks.release(block)
            raise
        self._stock.add(block, wrapped, lease)
        self._stock.trim(now, self.target + count)
        self._watch()
