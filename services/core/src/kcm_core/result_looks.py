"""Looks at kills of which another Core says that they are finished, until this one says so, too.

The result is then in this region's store, under the signature of one more Core.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_bus.serving import describe

log = logging.getLogger(__name__)

LOOKS_S: Final = (0.0, 2.0, 8.0, 20.0)
"""Seconds before each look at one hold: who has not watched for a lease says *complete* later."""

LOOKED_AT_MAX: Final = 64
"""Holds that are looked at: of others the result is asked for when somebody asks."""


class ResultLooks:
    """Tasks, one for each hold; their looks take turns."""

    def __init__(self, done: Callable[[bytes], Awaitable[bool]]) -> None:
        """``done`` looks at a hold, and says whether that was the last time."""
        self._done: Final = done
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._turn: Final = asyncio.Semaphore(1)

    def look(self, hold_id: bytes) -> None:
        """Look at a hold soon, unless that is under way."""
        if hold_id in self._tasks or len(self._tasks) >= LOOKED_AT_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._look(hold_id))
        self._tasks[hold_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(hold_id, None))

    def close(self) -> None:
        """Stop looking."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _look(self, hold_id: bytes) -> None:
        for wait in LOOKS_S:
            await asyncio.sleep(wait)
            try:
                async with self._turn:
                    if await self._done(hold_id):
                        return
            except Exception as error:  # noqa: BLE001 - the next look may be better
                log.warning("a finished kill could not be looked at: %s", describe(error))
