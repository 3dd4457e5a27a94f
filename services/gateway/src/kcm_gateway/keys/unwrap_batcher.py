"""Unwrapping data keys, with simultaneous requests combined into one.

A request to a Core is sent at once while few are in progress; otherwise its keys wait and travel
with the next one. So a single request never waits, and a busy Gateway sends full batches. Every
caller inherits the lease of the request that brought its keys, not of its own call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from kcm_keymem.arena import Purged
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from kcm_gateway.core_client import CoreClient
from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_gateway.keys.lease import Lease

REQUESTS_IN_FLIGHT_MAX: Final = 4
"""Unwrap requests of one service key in progress: enough to keep several Cores busy."""

Group = tuple[str, str, int]
"""Tenant, service, L3 version: the object of one request."""


@dataclass(frozen=True, slots=True)
class UnwrapAnswer:
    """Unwrapped keys: they begin at ``start`` in a block that the caller holds."""

    block: KeyBlock
    start: int
    bad: frozenset[int]
    lease: Lease


@dataclass(slots=True)
class _Ask:
    blobs: list[bytes]
    answer: asyncio.Future[UnwrapAnswer]

    def prefixes(self) -> set[bytes]:
        return {blob[: limits.PREFIX_SIZE] for blob in self.blobs}


@dataclass(slots=True)
class _Queue:
    asks: deque[_Ask] = field(default_factory=deque)
    in_flight: int = 0
    scheduled: bool = False


class UnwrapBatcher:
    """Combines unwraps by service key."""

    def __init__(self, core: CoreClient, blocks: Blocks) -> None:
        self._core: Final = core
        self._blocks: Final = blocks
        self._queues: dict[str, dict[Group, _Queue]] = {}
        """By tenant, so that a purge does not search those of other tenants."""
        self._tasks: Final = TaskSet()

    @property
    def requests(self) -> int:
        """Requests to a Core in progress."""
        return len(self._tasks)

    @property
    def queues(self) -> int:
        """Service keys for which a request is waiting or in progress."""
        return sum(map(len, self._queues.values()))

    async def open(self, group: Group, blobs: list[bytes]) -> UnwrapAnswer:
        """Unwrap blobs; the caller releases the block that it gets.

        There are at most ``KEYS_MAX`` of them, with at most ``PREFIXES_MAX`` nonce prefixes.
        """
        loop = asyncio.get_running_loop()
        ask = _Ask(blobs, loop.create_future())
        queue = self._queues.setdefault(group[0], {}).setdefault(group, _Queue())
        queue.asks.append(ask)
        if not queue.scheduled and queue.in_flight < REQUESTS_IN_FLIGHT_MAX:
            queue.scheduled = True
            loop.call_soon(self._send, group, queue)
        try:
            return await ask.answer
        except asyncio.CancelledError:
            if ask.answer.done() and not ask.answer.cancelled() and not ask.answer.exception():
                self._blocks.release(ask.answer.result().block)
            raise

    def purge(self, tenant: str) -> None:
        """Fail the calls that wait for keys of a tenant."""
        for queue in self._queues.get(tenant, {}).values():
            while queue.asks:
                _fail(queue.asks.popleft(), Purged())

    def _send(self, group: Group, queue: _Queue) -> None:
        queue.scheduled = False
        while queue.asks and queue.in_flight < REQUESTS_IN_FLIGHT_MAX:
            asks = _together(queue.asks)
            size = sum(len(ask.blobs) for ask in asks)
            queue.in_flight += 1
            self._tasks.spawn(self._request(group, queue, asks, size))
        if not queue.asks and not queue.in_flight:
            queues = self._queues.get(group[0], {})
            queues.pop(group, None)
            if not queues:
                self._queues.pop(group[0], None)

    async def _request(self, group: Group, queue: _Queue, asks: list[_Ask], size: int) -> None:
        tenant, service, version = group
        block: KeyBlock | None = None
        try:
            block = self._blocks.make(tenant, size)
            with block.use() as keys:
                blobs = b"".join(chain.from_iterable(ask.blobs for ask in asks))
                lease, bad = await self._core.unwrap(
                    tenant, service, "record", version, blobs, keys.view
                )
            at = 0
            for ask in asks:
                end = at + len(ask.blobs)
                if not ask.answer.done():
                    mine = frozenset(position - at for position in bad if at <= position < end)
                    ask.answer.set_result(UnwrapAnswer(self._blocks.hold(block), at, mine, lease))
                at = end
        except (Purged, KcmError) as error:
            for ask in asks:
                _fail(ask, error)
        except Exception:  # noqa: BLE001 - every caller gets an answer; this frame shows no key
            for ask in asks:
                _fail(ask, KcmError(Code.INTERNAL))
        finally:
            if block is not None:
                self._blocks.release(block)
            queue.in_flight -= 1
            self._send(group, queue)


def _together(asks: deque[_Ask]) -> list[_Ask]:
    """Take from the front as many as one request may contain, and at least one."""
    taken = [asks.popleft()]
    size = len(taken[0].blobs)
    if not asks:
        return taken
    prefixes = taken[0].prefixes()
    while asks and size + len(asks[0].blobs) <= limits.KEYS_MAX:
        prefixes |= asks[0].prefixes()
        if len(prefixes) > limits.PREFIXES_MAX:
            break
        taken.append(asks.popleft())
        size += len(taken[-1].blobs)
    return taken


def _fail(ask: _Ask, error: KcmError | Purged) -> None:
    if not ask.answer.done():  # each caller has its own
        own = KcmError(error.code, error.detail) if isinstance(error, KcmError) else Purged()
        ask.answer.set_exception(own)
