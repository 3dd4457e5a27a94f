"""A condition over state that callbacks change: it is looked at after each change, not polled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final


class Changes:
    """Wakes those who wait, in the event loop of the notifier."""

    def __init__(self) -> None:
        self._waiting: Final[set[asyncio.Future[None]]] = set()

    def notify(self) -> None:
        """Something changed: each waiter looks whether its condition holds."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``holds()``; ``False`` when it does not after ``timeout_s`` seconds.

        ``holds`` is called at once, after every change, and once more when time is up. What it
        raises ends the wait.
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
