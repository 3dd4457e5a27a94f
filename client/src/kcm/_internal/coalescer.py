"""Gathering single calls: cost on the bus is per message, so calls at the same time share one.

The first call of a quiet moment leaves with whatever the same turn of the event loop brings; while
a message is on the way, further calls wait up to ``WINDOW_S`` or until ``GATHER_MAX`` are there.
Every caller keeps a deadline of its own: who runs out of time leaves, and the answer to the others
is none of its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from kcm_schemas.codes import KcmError

from kcm._internal.batches import BatchResult
from kcm.errors import DeadlineExceeded, Unavailable

GATHER_MAX: Final = 256
"""Records gathered into one message at most: what a Gateway asks a Core for at once."""

GATHER_BYTES_MAX: Final = 256 * 1024
"""Bytes gathered at most: beyond that, sharing a message saves nothing."""

WINDOW_S: Final = 0.001
"""Seconds that a call waits for others while a message is on the way."""


class Key(NamedTuple):
    """Calls that may share a message."""

    operation: Literal["encrypt", "decrypt"]
    tenant: str
    service: str


Send = Callable[[Key, list[bytes], list[bytes], float], Awaitable[BatchResult]]
"""Sends payloads and contexts, with a deadline in seconds."""


@dataclass(slots=True)
class _Gathering:
    payloads: list[bytes] = field(default_factory=list)
    contexts: list[bytes] = field(default_factory=list)
    waiting: list[asyncio.Future[bytes]] = field(default_factory=list)
    deadline_s: float = 0.0
    size: int = 0
    timer: asyncio.Handle | None = None


class Coalescer:
    """Gathers calls by key and sends them as batches."""

    def __init__(self, send: Send) -> None:
        self._send: Final = send
        self._gatherings: dict[Key, _Gathering] = {}
        self._on_the_way: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, key: Key, payload: bytes, context: bytes, deadline_s: float) -> bytes:
        """One record's value; raises ``KcmError``, at the latest after ``deadline_s`` seconds."""
        if self._closed:
            raise Unavailable("the client is closed")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._join(key, payload, context, deadline_s, future)
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            raise DeadlineExceeded from None

    async def close(self) -> None:
        """Send what is gathered, wait for the answers, and take no more."""
        self._closed = True
        for key in list(self._gatherings):
            self._flush(key)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _join(
        self,
        key: Key,
        payload: bytes,
        context: bytes,
        deadline_s: float,
        future: asyncio.Future[bytes],
    ) -> None:
        gathering = self._gatherings.get(key)
        if gathering is None:
            gathering = self._gatherings[key] = _Gathering()
            loop = asyncio.get_running_loop()
            if self._on_the_way.get(key):
                gathering.timer = loop.call_later(WINDOW_S, self._flush, key)
            else:
                gathering.timer = loop.call_soon(self._flush, key)
        gathering.payloads.append(payload)
        gathering.contexts.append(context)
        gathering.waiting.append(future)
        gathering.deadline_s = max(gathering.deadline_s, deadline_s)
        gathering.size += len(payload) + len(context)
        if len(gathering.waiting) >= GATHER_MAX or gathering.size >= GATHER_BYTES_MAX:
            self._flush(key)

    def _flush(self, key: Key) -> None:
        gathering = self._gatherings.pop(key, None)
        if gathering is None:
            return
        if gathering.timer is not None:
            gathering.timer.cancel()
        self._on_the_way[key] = self._on_the_way.get(key, 0) + 1
        task = asyncio.get_running_loop().create_task(self._deliver(key, gathering))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, key: Key, gathering: _Gathering) -> None:
        try:
            result = await self._send(
                key, gathering.payloads, gathering.contexts, gathering.deadline_s
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' to see
            for future in gathering.waiting:
                if not future.done():
                    # Each caller raises its own: one exception has one traceback.
                    future.set_exception(copy(error) if isinstance(error, KcmError) else error)
            return
        finally:
            self._sent(key)
        for index, future in enumerate(gathering.waiting):
            if future.done():
                continue  # its caller ran out of time
            try:
                future.set_result(result.one(index))
            except KcmError as failure:
                future.set_exception(failure)

    def _sent(self, key: Key) -> None:
        left = self._on_the_way[key] - 1
        if left:
            self._on_the_way[key] = left
        else:
            del self._on_the_way[key]
