"""The data keys of one decryption: from the cache, otherwise from a Core, each key once.

Unwrapped keys are held until the decryption is finished, and then wiped. Keys that arrive after
their tenant was purged are wiped at once, and are not cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

from kcm_keymem.arena import Keys, Purged
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.control_lease import EXPIRED
from kcm_runtime.clock import Clock
from kcm_schemas import limits
from kcm_schemas.asks import split, version_of
from kcm_schemas.codes import Code, KcmError

from kcm_gateway.keys.asks import AppAsks, AskPart
from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_gateway.keys.cache import KeyCache
from kcm_gateway.keys.recheck import Recheck
from kcm_gateway.keys.unwrap_batcher import UnwrapBatcher

_BLOB: Final = slice(4, 4 + limits.WRAPPED_SIZE)
_NO_KEY: Final = memoryview(b"")

SWEEP_MIN_S: Final = 0.05
"""The least seconds between two sweeps of the cache."""

REQUESTS_MAX: Final = 4
"""Requests of one decryption in progress at once: a batch with records of a thousand key versions
must not use up the Core's room."""


class OpenKeys:
    """Keys in the order of the request; a context manager that releases them.

    Leaving it raises ``Purged`` if any of them was purged meanwhile.
    """

    def __init__(self, blocks: Blocks, count: int) -> None:
        self._blocks: Final = blocks
        self._places: Final = [_NO_KEY] * count
        self._held: list[KeyBlock] = []
        self._until = float("inf")
        self.refused: Final[dict[int, Code]] = {}
        """The positions without a key, and why."""
        self.waited = False
        """Whether some of the keys came from a Core."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        purged = any(block.purged for block in self._held)
        self.release()
        if purged and kind is None:
            raise Purged

    def release(self) -> None:
        """Release every key."""
        self._places.clear()
        for block in self._held:
            block.leave()
            self._blocks.release(block)
        self._held.clear()

    def hold(self, block: KeyBlock, until: float) -> Keys:
        """Take over a block until the end; ``until`` bounds the whole decryption."""
        try:
            block.enter()
        except Purged:
            self._blocks.release(block)
            raise
        self._held.append(block)
        self.bound(until)
        return block.keys()

    def bound(self, until: float) -> None:
        """Bound the decryption: one of its keys may be used until then."""
        self._until = min(self._until, until)

    def place(self, positions: Iterable[int], keys: Iterable[memoryview]) -> None:
        """Set the keys at ``positions``, which are consecutive in a held block."""
        for position, key in zip(positions, keys, strict=True):
            self._places[position] = key

    def refuse(self, position: int, code: Code) -> None:
        """Note that there is no key at ``position``, and why."""
        self._places[position] = _NO_KEY
        self.refused[position] = code

    def keys(self) -> Sequence[memoryview]:
        """Return each key's 32 bytes, empty for a refused one."""
        return self._places

    def each(self, groups: Iterable[Sequence[int]]) -> Iterable[tuple[memoryview, Sequence[int]]]:
        """Return each key that was not refused, with its item of ``groups``."""
        pairs = zip(self._places, groups, strict=True)
        if not self.refused:
            return pairs
        return [pair for at, pair in enumerate(pairs) if at not in self.refused]

    @property
    def until(self) -> float:
        """When the first lease of the keys ends."""
        return self._until


class KeyLookup:
    """Finds the keys of a decryption."""

    def __init__(
        self,
        unwrapper: UnwrapBatcher,
        cache: KeyCache,
        blocks: Blocks,
        clock: Clock,
        recheck: Recheck,
    ) -> None:
        self._unwrapper: Final = unwrapper
        self._cache: Final = cache
        self._blocks: Final = blocks
        self._clock: Final = clock
        self._recheck: Final = recheck
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def open(
        self,
        permit: Permit,
        service: str,
        wanted: list[bytes],
        lease_until: float = EXPIRED,
        asks: AppAsks | None = None,
    ) -> OpenKeys:
        """Unwrap keys named by L3 version (4 bytes) and wrapped form (72 bytes), each once.

        ``permit`` is that of the decryption: keys that arrive in another generation are wiped. A
        cached key whose lease ends before ``lease_until`` is requested from a Core. A key that does
        not authenticate is ``tampered``, one whose L3 is destroyed ``key_destroyed``; raises
        ``KcmError`` for all of them. ``asks`` is what an application asks of Cores for all keys: a
        Core gets each list of them whole, also if some of its keys are cached.
        """
        tenant = permit.tenant
        opened = OpenKeys(self._blocks, len(wanted))
        room = asyncio.Semaphore(REQUESTS_MAX)

        async def ask(positions: Sequence[int], part: AskPart | None) -> None:
            async with room:
                self._recheck(permit)  # it may have waited for room
                await self._from_core(permit, service, wanted, positions, opened, part)

        try:
            missing = self._from_cache(tenant, service, wanted, opened, lease_until)
            calls = [ask(*one) for one in _calls(wanted, missing, asks)]
            if len(calls) == 1:
                await calls[0]
            else:
                # All of them end before the first failure is raised: a late one would hold a block
                # that is never released.
                for failure in await asyncio.gather(*calls, return_exceptions=True):
                    if failure is not None:
                        raise failure
        except BaseException:
            opened.release()
            raise
        return opened

    def _from_cache(
        self, tenant: str, service: str, wanted: list[bytes], opened: OpenKeys, lease_until: float
    ) -> list[int]:
        """Take keys from the cache; returns the positions that are missing there."""
        if not self._cache.enabled or not wanted:
            return list(range(len(wanted)))
        block = self._blocks.make(tenant, len(wanted))
        keys = opened.hold(block, float("inf"))
        missing = []
        now = self._clock.elapsed()
        for position, (name, out) in enumerate(zip(wanted, keys.each, strict=True)):
            lease = self._cache.get(tenant, (service, name), now, lease_until, out)
            if lease is None:
                missing.append(position)
            else:
                opened.bound(lease.until)
                opened.place((position,), (out,))
        return missing

    async def _from_core(
        self,
        permit: Permit,
        service: str,
        wanted: list[bytes],
        positions: Sequence[int],
        opened: OpenKeys,
        part: AskPart | None,
    ) -> None:
        tenant, opened.waited = permit.tenant, True
        version = version_of(wanted[positions[0]])
        if version == 0:  # in a request to a Core it means the current version
            for position in positions:
                opened.refuse(position, Code.MALFORMED)
            return
        blobs = [wanted[position][_BLOB] for position in positions]
        try:
            answer = await self._unwrapper.open((tenant, service, version), blobs, part)
        except KcmError as error:
            if error.code is not Code.KEY_DESTROYED:
                raise
            for position in positions:
                opened.refuse(position, error.code)
            return
        keys = opened.hold(answer.block, answer.lease.until)
        self._recheck(permit)
        start = answer.start
        opened.place(positions, keys.each[start : start + len(positions)])
        for i in answer.bad:
            opened.refuse(positions[i], Code.TAMPERED)
        if self._cache.enabled:
            for position in positions:
                if position not in opened.refused:
                    key = opened.keys()[position]
                    self._cache.put(tenant, (service, wanted[position]), answer.lease, key)
            self._watch(tenant, answer.lease.begin_until)

    def _watch(self, tenant: str, end: float) -> None:
        """Schedule a sweep of the cache for the first moment at which a reserve begins."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(end - self._clock.elapsed(), SWEEP_MIN_S)
        timer = self._timers.get(tenant)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        self._timers[tenant] = loop.call_at(at, self.expire, tenant)

    def expire(self, tenant: str) -> None:
        """Wipe the tenant's cached keys whose reserve has begun."""
        timer = self._timers.pop(tenant, None)
        if timer is not None:
            timer.cancel()
        end = self._cache.sweep(tenant, self._clock.elapsed())
        if end is not None:
            self._watch(tenant, end)


def _calls(
    wanted: Sequence[bytes], missing: Sequence[int], asks: AppAsks | None
) -> Iterator[tuple[Sequence[int], AskPart | None]]:
    """Yield positions that one request can have, with what an application asks for them."""
    if asks is None:
        for positions in split(wanted, missing):
            yield positions, None
        return
    lacking = set(missing)
    for number, positions in enumerate(split(wanted, range(len(wanted)))):
        if not lacking.isdisjoint(positions):
            yield positions, asks.part(number)
