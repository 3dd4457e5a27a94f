"""A pool of data keys that are wrapped before they are needed.

Encrypting asks nobody: it takes a key and the blob that the Core made of it. The pool follows the
load: it aims to hold what was used during the last ``AHEAD_S`` seconds, between one batch and the
configured maximum, and starts refilling when it has less. The busier it is, the more keys a refill
brings: the channel costs per request, and a pool with little to do shall hold few keys.

Age counts as well as number. Keys whose lease is half over do not count any more, so that a service
that uses one key a second has young ones before the old ones go; and nothing is handed out with
less than the reserve of its lease left (``kcm_gateway.keys.lease``). Such keys are wiped, whether
anybody asks for keys or not.

Its keys end with the lease of the reply that brought them, counted from the sending of that
request, and are of one L3 version each. A key leaves the pool once. Whether it was used or not, it
is never given back.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kcm_keymem.arena import Purged
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.control_lease import EXPIRED
from kcm_runtime.clock import Clock
from kcm_schemas import limits
from kcm_schemas.codes import KcmError
from kcm_sealing.memory import wipe

from kcm_gateway.core_client import CoreClient
from kcm_gateway.guard import Guard
from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.lease import too_short
from kcm_gateway.keys.stock import Segment, Stock

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
"""Seconds between two looks for keys that are too old, at least."""


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
        randomness: KeyRandomness,
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
        self._stock: Final = Stock(blocks)
        self._refills: dict[asyncio.Task[None], int] = {}
        self._cleared = 0
        self._rate = 0.0
        self._taken = 0
        self._since = clock.elapsed()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether there is neither a key nor a refill under way."""
        return not self._stock and not self._refills

    @property
    def available(self) -> int:
        """Keys ready for use."""
        return self._stock.available

    @property
    def target(self) -> int:
        """Keys that the pool aims to hold at the present load."""
        return min(max(BATCH, int(self._rate * AHEAD_S)), self._keys_max)

    async def take(self, count: int, lasting: float = EXPIRED) -> list[Segment]:
        """``count`` keys, in as few segments as possible; raises what a refill raises.

        None has less than the reserve of its lease left. Keys whose lease lasts at least until
        ``lasting`` are preferred: one refill is waited for if there are none. Every segment has to
        be given to ``done``.
        """
        self._measure(count)
        segments: list[Segment] = []
        try:
            await self._collect(segments, count, lasting)
            now = self._clock.elapsed()
            if self._discard_old(segments, now):  # who needs many may wait, and for long
                missing = count - sum(segment.count for segment in segments)
                await self._collect(segments, missing, lasting)
                now = self._clock.elapsed()
                if self._discard_old(segments, now):
                    raise too_short()
        except BaseException:
            self.done(segments)
            raise
        self._refill_ahead(now)
        return segments

    def done(self, segments: list[Segment]) -> None:
        """Wipe the keys of segments, used or not."""
        for segment in segments:
            if not segment.block.purged:
                with segment.use() as keys:
                    wipe(keys.view)
            self._blocks.release(segment.block)

    def clear(self) -> None:
        """Forget every key and every refill under way; who waits for one gets none."""
        self._cleared += 1
        for task in self._refills:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._stock.clear()

    def expire(self) -> None:
        """Wipe the keys that are too old to be handed out."""
        self._timer = None
        self._stock.give_up(self._clock.elapsed())
        self._watch()

    async def _collect(self, segments: list[Segment], count: int, lasting: float) -> None:
        """Take ``count`` keys, waiting for refills as long as there are too few."""
        waited = False
        while count:
            self._stock.give_up(self._clock.elapsed())
            segment = self._stock.cut(count, lasting)
            if segment is None and waited:
                segment = self._stock.cut(count, EXPIRED)
            if segment is None:
                await self._wait_for_refill(count)
                waited = True
                continue
            segments.append(segment)
            count -= segment.count

    def _discard_old(self, segments: list[Segment], now: float) -> bool:
        """Wipe what became too old while more was waited for; returns whether there was any."""
        old = [segment for segment in segments if now >= segment.lease.begin_until]
        if old:
            segments[:] = [segment for segment in segments if segment not in old]
            self.done(old)
        return bool(old)

    def _watch(self) -> None:
        """Look again when the keys that end first are too old, which may be sooner than planned."""
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

    def _refill_ahead(self, now: float) -> None:
        target = self.target
        expected = self._stock.young(now) + sum(self._refills.values())
        while expected < target and len(self._refills) < REFILLS_MAX:
            expected += self._start_refill(target // REFILLS_AHEAD)

    async def _wait_for_refill(self, count: int) -> None:
        if not self._refills:
            self._start_refill(max(count, self.target // REFILLS_AHEAD))
        cleared = self._cleared
        done, _ = await asyncio.wait(self._refills, return_when=asyncio.FIRST_COMPLETED)
        if cleared != self._cleared or any(task.cancelled() for task in done):
            # Also where the refill had just come: this pool is not the tenant's any more.
            raise Purged
        for task in done:
            error = task.exception()
            if isinstance(error, KcmError) and not self._stock:
                raise KcmError(error.code, error.detail)  # each waiter has one of its own
            if error is not None and not self._stock:
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
        permit = self._guard.admit(self._tenant)
        block = self._blocks.make(self._tenant, count)
        try:
            with block.use() as keys:
                self._random.fill(keys.view)
                lease, wrapped = await self._core.wrap(
                    self._tenant, self._service, "record", keys.view
                )
            self._guard.recheck(permit)
            now = self._clock.elapsed()
            if lease.too_short(now):
                raise too_short()
        except BaseException:
            self._blocks.release(block)
            raise
        self._stock.add(block, wrapped, lease)
        self._stock.trim(now, self.target + count)
        self._watch()
