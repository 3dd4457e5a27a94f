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

from kcm_gateway.core_client import CoreClient, Unwrapping
from kcm_gateway.keys.asks import AskPart
from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_gateway.keys.lease import Lease

REQUESTS_IN_FLIGHT_MAX: Final = 4
"""Unwrap requests of one service key in progress: enough to keep several Cores busy."""

Group = tuple[str, str, int]
"""Tenant, service, L3 version: the object of one request."""

_Place = tuple[Group, tuple[str, ...]]
"""What can share a request: also the Cores that can verify the asks, none without an ask."""

_ASK_CODES: Final = frozenset({Code.UNKNOWN_ASK, Code.FORBIDDEN})
"""What a Core says of an ask as a whole."""


@dataclass(frozen=True, slots=True)
class UnwrapAnswer:
    """Unwrapped keys: they begin at ``start`` in a block that the caller holds."""

    block: KeyBlock
    start: int
    bad: frozenset[int]
    lease: Lease


@dataclass(slots=True)
class _Call:
    blobs: list[bytes]
    part: AskPart | None
    answer: asyncio.Future[UnwrapAnswer]

    def prefixes(self) -> set[bytes]:
        return {blob[: limits.PREFIX_SIZE] for blob in self.blobs}


@dataclass(slots=True)
class _Queue:
    calls: deque[_Call] = field(default_factory=deque)
    in_flight: int = 0
    scheduled: bool = False


class UnwrapBatcher:
    """Combines unwraps by service key."""

    def __init__(self, core: CoreClient, blocks: Blocks) -> None:
        self._core: Final = core
        self._blocks: Final = blocks
        self._queues: dict[str, dict[_Place, _Queue]] = {}
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

    async def open(
        self, group: Group, blobs: list[bytes], part: AskPart | None = None
    ) -> UnwrapAnswer:
        """Unwrap blobs; the caller releases the block that it gets.

        There are at most ``KEYS_MAX`` of them, with at most ``PREFIXES_MAX`` nonce prefixes.
        ``part`` is what an application asks, for exactly these blobs in this order. Raises
        ``KcmError``: also ``unknown_ask`` and ``forbidden`` if the Core refuses that.
        """
        loop = asyncio.get_running_loop()
        call = _Call(blobs, part, loop.create_future())
        place = (group, part.cores if part else ())
        queue = self._queues.setdefault(group[0], {}).setdefault(place, _Queue())
        queue.calls.append(call)
        if not queue.scheduled and queue.in_flight < REQUESTS_IN_FLIGHT_MAX:
            queue.scheduled = True
            loop.call_soon(self._send, place, queue)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if call.answer.done() and not call.answer.cancelled() and not call.answer.exception():
                self._blocks.release(call.answer.result().block)
            raise

    def purge(self, tenant: str) -> None:
        """Fail the calls that wait for keys of a tenant."""
        for queue in self._queues.get(tenant, {}).values():
            while queue.calls:
                _fail(queue.calls.popleft(), Purged())

    def _send(self, place: _Place, queue: _Queue) -> None:
        queue.scheduled = False
        while queue.calls and queue.in_flight < REQUESTS_IN_FLIGHT_MAX:
            calls = _together(queue.calls)
            size = sum(len(call.blobs) for call in calls)
            queue.in_flight += 1
            self._tasks.spawn(self._request(place, queue, calls, size))
        if not queue.calls and not queue.in_flight:
            tenant = place[0][0]
            queues = self._queues.get(tenant, {})
            queues.pop(place, None)
            if not queues:
                self._queues.pop(tenant, None)

    async def _request(self, place: _Place, queue: _Queue, calls: list[_Call], size: int) -> None:
        (tenant, service, version), _ = place
        parts = [(call.part, len(call.blobs)) for call in calls if call.part is not None]
        block: KeyBlock | None = None
        try:
            block = self._blocks.make(tenant, size)
            with block.use() as keys:
                blobs = b"".join(chain.from_iterable(call.blobs for call in calls))
                work = Unwrapping(tenant, service, "record", version, blobs, parts)
                lease, bad = await self._core.unwrap(work, keys.view)
            at = 0
            for call in calls:
                end = at + len(call.blobs)
                code = bad.get(at, Code.OK)
                if code in _ASK_CODES:
                    _fail(call, KcmError(code))
                elif not call.answer.done():
                    mine = frozenset(position - at for position in bad if at <= position < end)
                    call.answer.set_result(UnwrapAnswer(self._blocks.hold(block), at, mine, lease))
                at = end
        except (Purged, KcmError) as error:
            for call in calls:
                _fail(call, error)
        except Exception:  # noqa: BLE001 - every caller gets an answer; this frame shows no key
            for call in calls:
                _fail(call, KcmError(Code.INTERNAL))
        finally:
            if block is not None:
                self._blocks.release(block)
            queue.in_flight -= 1
            self._send(place, queue)


def _together(calls: deque[_Call]) -> list[_Call]:
    """Take from the front as many as one request may contain, and at least one."""
    taken = [calls.popleft()]
    size = len(taken[0].blobs)
    if not calls:
        return taken
    prefixes = taken[0].prefixes()
    while calls and size + len(calls[0].blobs) <= limits.KEYS_MAX:
        prefixes |= calls[0].prefixes()
        if len(prefixes) > limits.PREFIXES_MAX:
            break
        taken.append(calls.popleft())
        size += len(taken[-1].blobs)
    return taken


def _fail(call: _Call, error: KcmError | Purged) -> None:
    if not call.answer.done():  # each caller has its own
        own = KcmError(error.code, error.detail) if isinstance(error, KcmError) else Purged()
        call.answer.set_exception(own)
