"""Looks at kills that are finished, until their result is in this region's store.

Another Core says that one is finished: this one looks until it says so, too, or does not for long.
Or it was told here, and could not be stored: then until it is, or an operator lifts the kill.

Regions are kept apart: one whose Core lies about many kills keeps nobody from looking at another's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from kcm_runtime.error_text import describe

log = logging.getLogger(__name__)

LOOKS_S: Final = (0.0, 2.0, 8.0, 20.0)
"""Seconds before each look at one hold: who has not watched for a lease says *complete* later."""

AGAIN_S: Final = 60.0
"""Seconds between further looks at one that is not stored: a disk may be full for long."""

LOOKED_AT_MAX: Final = 64
"""Holds of one region that are looked at: of others the result is asked for when somebody asks."""

Seen = Literal["stored", "not stored", "not finished"]
"""What a look found."""


class ResultLooks:
    """Tasks, one for each region that says so and each hold; the looks of a region take turns."""

    def __init__(self, see: Callable[[bytes], Awaitable[Seen]]) -> None:
        """``see`` looks at a hold."""
        self._see: Final = see
        self._tasks: Final[dict[str, dict[bytes, asyncio.Task[None]]]] = {}
        self._turns: Final[dict[str, asyncio.Semaphore]] = {}

    def look(self, hold_id: bytes, region: str) -> bool:
        """Look at a hold soon, because a region says so; ``False`` where that is under way.

        Or where too many of that region are. ``region`` is one of the roster.
        """
        tasks = self._tasks.setdefault(region, {})
        if hold_id in tasks or len(tasks) >= LOOKED_AT_MAX:
            return False
        turn = self._turns.setdefault(region, asyncio.Semaphore(1))
        task = asyncio.get_running_loop().create_task(self._look(hold_id, turn))
        tasks[hold_id] = task
        task.add_done_callback(lambda _: tasks.pop(hold_id, None))
        return True

    def of(self, region: str) -> set[bytes]:
        """The holds that are looked at because a region says so."""
        return set(self._tasks.get(region, {}))

    def close(self) -> None:
        """Stop looking."""
        for tasks in self._tasks.values():
            for task in list(tasks.values()):
                task.cancel()

    async def _look(self, hold_id: bytes, turn: asyncio.Semaphore) -> None:
        seen: Seen = "not finished"
        for number, wait in enumerate(_waits()):
            if number >= len(LOOKS_S) and seen == "not finished":
                return
            await asyncio.sleep(wait)
            try:
                async with turn:
                    seen = await self._see(hold_id)
            except Exception as error:  # noqa: BLE001 - the next look may be better
                log.warning("a finished kill could not be looked at: %s", describe(error))
            if seen == "stored":
                return


def _waits() -> Iterator[float]:
    return itertools.chain(LOOKS_S, itertools.repeat(AGAIN_S))
