"""The children of the unsealer's server, shared by keys.

Keys that wait for a child take turns. Those that did not answer their last call share a few
children, however many there are: each of them can hold a child until a deadline passes, and the
others keep the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from kcm_runtime.fair_queue import FIRST, Bounds, FairQueue
from kcm_schemas.codes import KcmError

from kcm_core.providers.state import L1Error, L1State

SILENT_MAX: Final = 4
"""Children at once for all keys that did not answer their last call: a quarter."""

WAITING_MAX: Final = 4096
"""Calls that have a child or wait for one. The keys that did not answer have half of that."""

_SILENT: Final = ("silent",)


class ChildSlots:
    """``count`` children: each call has one until it ends."""

    def __init__(self, count: int) -> None:
        self._free = count
        # A key has two calls at once at most (``key_gate``): the bound is for the silent ones.
        self._queue: Final[FairQueue[asyncio.Future[None]]] = FairQueue(
            Bounds(requests=WAITING_MAX, size=0, running=SILENT_MAX)
        )

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a child."""
        return self._queue.waiting

    @asynccontextmanager
    async def take(self, uri: str, *, silent: bool) -> AsyncIterator[None]:
        """Wait for a child, and bracket one call with it.

        ``silent`` says that the key did not answer its last call. Raises ``L1Error`` (unreachable)
        if too many calls wait.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            ticket = self._queue.put(_SILENT if silent else (uri,), turn, cost=FIRST)
        except KcmError:
            raise L1Error(L1State.UNREACHABLE, "too many calls to keys wait") from None
        self._grant()
        try:
            await turn
            yield
        finally:
            self._free += ticket.running
            self._queue.leave(ticket)
            self._grant()

    def _grant(self) -> None:
        while self._free:
            ticket, _ = self._queue.take(0.0)
            if ticket is None:
                return
            self._free -= 1
            if not ticket.item.done():  # else it was cancelled: its own end frees the child
                ticket.item.set_result(None)
