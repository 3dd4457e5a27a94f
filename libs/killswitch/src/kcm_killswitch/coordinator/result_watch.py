"""Repeated checks of finished kills, until their result is in this region's store.

There are two reasons for a check. Another Core reports a finished kill: this Core checks until it
finds the kill complete, too, or gives up after some time. Or this Core reported a result that could
not be stored: it checks until the result is stored, or an operator lifts the kill.

Each region has its own queue. A region whose Core sends false reports about many kills delays no
check for another region.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.tasks import TaskSet

log = logging.getLogger(__name__)

LOOKS_S: Final = (0.0, 2.0, 8.0, 20.0)
"""Seconds before each check of one hold.

A Core whose watch is shorter than a lease finds the kill complete later.
"""

AGAIN_S: Final = 60.0
"""Seconds between further checks of a result that is not stored: a disk may be full for long."""

LOOKED_AT_MAX: Final = 64
"""Maximum number of holds of one region that are checked.

The results of other holds are requested when an operator asks for them.
"""

Seen = Literal["stored", "not stored", "not finished"]
"""The result of a check."""


class ResultLooks:
    """Tasks, one for each reporting region and hold; the checks of one region take turns."""

    def __init__(self, see: Callable[[bytes], Awaitable[Seen]]) -> None:
        """``see`` checks a hold."""
        self._see: Final = see
        self._tasks: Final = TaskSet()
        self._holds: Final[dict[str, set[bytes]]] = {}
        self._turns: Final[dict[str, asyncio.Semaphore]] = {}

    def look(self, hold_id: bytes, region: str) -> bool:
        """Check a hold soon, because ``region`` (one of the roster) reports it as finished.

        Returns ``False`` if such a check is already under way, or if too many are for that region.
        """
        holds = self._holds.setdefault(region, set())
        if hold_id in holds or len(holds) >= LOOKED_AT_MAX:
            return False
        turn = self._turns.setdefault(region, asyncio.Semaphore(1))
        holds.add(hold_id)
        task = self._tasks.spawn(self._look(hold_id, region, turn))
        task.add_done_callback(lambda _: holds.discard(hold_id))
        return True

    def of(self, region: str) -> set[bytes]:
        """The holds that are checked because of reports from a region."""
        return set(self._holds.get(region, ()))

    def close(self) -> None:
        """Stop checking."""
        self._tasks.close()

    async def _look(self, hold_id: bytes, region: str, turn: asyncio.Semaphore) -> None:
        seen: Seen = "not finished"
        for number, wait in enumerate(_waits()):
            if number >= len(LOOKS_S) and seen == "not finished":
                return
            await asyncio.sleep(wait)
            try:
                async with turn:
                    seen = await self._see(hold_id)
            except Exception as error:  # noqa: BLE001 - the next check may succeed
                again = seen != "not finished" or number + 1 < len(LOOKS_S)
                log.warning(
                    "a kill that was reported as finished could not be checked (%s): %s",
                    "it is checked again" if again else "this was the last check",
                    describe(error),
                    extra=fields(hold=hold_id, region=region),
                )
            if seen == "stored":
                return


def _waits() -> Iterator[float]:
    return itertools.chain(LOOKS_S, itertools.repeat(AGAIN_S))
