"""Waiting for a condition over state that callbacks change: checked at changes, not polled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final


class Changes:
    """Wakes waiting tasks at every change, in the event loop of the notifier."""

    def __init__(self) -> None:
        self._waiting: Final[set[asyncio.Future[None]]] = set()

    @property
    def waiting(self) -> int:
        """How many tasks wait for a change."""
        return len(self._waiting)

    def notify(self) -> None:
        """Note a change: each waiting task checks its condition."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``holds()`` is true; returns ``False`` after ``timeout_s`` seconds without.

        ``holds`` is called at once, after every change, and once more at the end of the time. Its
        exceptions end the wait.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    await self._change()
        except TimeoutError:
            return holds()
        return True

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
