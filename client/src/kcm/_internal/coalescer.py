"""Concurrent single calls share a message, because the cost on the broker is per message.

If no message is in flight, a call is sent with the others of the same turn of the event loop. While
a message is in flight, further calls wait for ``WINDOW_S`` or until ``GATHER_MAX`` are there. Every
call keeps its deadline. A call that times out leaves the message; the others still get their
results.
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
"""Maximum records of a shared message: as many as a Gateway requests of a Core at once."""

GATHER_BYTES_MAX: Final = 256 * 1024
"""Maximum bytes of a shared message. Sharing a larger one saves nothing."""

WINDOW_S: Final = 0.001
"""Seconds that a call waits for others while a message is in flight."""


class Key(NamedTuple):
    """What calls have in common that may share a message."""

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
    """Collects calls by key and sends them as batches."""

    def __init__(self, send: Send) -> None:
        self._send: Final = send
        self._gatherings: dict[Key, _Gathering] = {}
        self._on_the_way: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, key: Key, payload: bytes, context: bytes, deadline_s: float) -> bytes:
        """Return one record's value, or raise ``KcmError`` within ``deadline_s`` seconds."""
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
        """Send the collected calls, wait for their replies, and refuse further calls."""
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
        except Exception as error:  # noqa: BLE001 - the callers raise it
            for future in gathering.waiting:
                if not future.done():
                    # Each caller raises a copy, because an exception has one traceback.
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
