"""Reads the region's stream once more when a roster lets somebody say more than before.

A hold may lie in the stream below the roster by which it counts. Whoever read it there did not
believe it, and nothing of what is not believed is kept. So the stream is read from its start,
beside whoever follows it; until that is done, this incarnation says in its record that it judges by
the roster before, and nobody takes its silence for a purge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.nats.ports import Entry, Log
from kcm_runtime.roster.store import Rosters

from kcm_killswitch.model.log_position import LogPosition

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds after which a reading that failed is begun again."""


class StreamReplay:
    """What of the stream was judged by which roster."""

    def __init__(
        self,
        rosters: Rosters,
        stream: Log,
        take: Callable[[Entry], None],
        renew: Callable[[], Awaitable[LogPosition]],
    ) -> None:
        """``take`` gets every entry once more; ``renew`` writes the incarnation's own record."""
        self._rosters: Final = rosters
        self._stream: Final = stream
        self._take: Final = take
        self._renew: Final = renew
        self._judged = rosters.version
        self._reading = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def judged(self) -> int:
        """The version by which everything in the stream was judged here."""
        return self._judged

    def begin(self) -> None:
        """The stream is read from now on: what counts before that is judged once."""
        self._judged, self._reading = self._rosters.version, True

    def changed(self) -> None:
        """Another roster, or list, counts, and what is known was judged by it."""
        idle = self._task is None or self._task.done()
        if not self._reading or (idle and not self._rosters.more):
            self._judged = self._rosters.version
        elif idle and not self._closing:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop reading."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._judged != self._rosters.version and not self._closing:
            version = self._rosters.version
            try:
                await self._read()
                self._judged = version
                await self._renew()  # whoever waits for this incarnation sees it there
            except Exception as error:  # noqa: BLE001 - it is tried until it is done
                log.warning("the stream is not judged by the new roster yet: %s", describe(error))
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        """Read everything that was stored when this was called."""
        mark = await self._renew()
        following = self._stream.follow(_FromItsStart(self._take))
        try:
            await following.start()
            await following.reached(mark.sequence)
        finally:
            await following.close()


class _FromItsStart:
    """A follower that keeps no place."""

    def __init__(self, take: Callable[[Entry], None]) -> None:
        self._take: Final = take

    def anchor(self) -> int:
        """Everything."""
        return 0

    def resumed(self, behind: int) -> None:
        """Nothing is remembered of it."""

    def went_back(self) -> None:
        """Whoever follows the stream for good finds out."""

    def receive(self, entry: Entry) -> None:
        """Take one message."""
        self._take(entry)
