"""Replays the region's stream when a roster gives a signer more rights than before.

A hold may be in the stream before the roster by which it counts. An instance that read it there did
not accept it, and it keeps no copy of what it does not accept. So the stream is replayed from its
start, in parallel with the normal follower. Until the replay is complete, the lease entry of this
incarnation names the previous roster version, and no Core takes its silence for a purge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects

from kcm_killswitch.model.log_position import LogPosition

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds until a failed replay is restarted."""


class StreamReplay:
    """The roster version by which the content of the stream was evaluated."""

    def __init__(
        self,
        rosters: Rosters,
        stream: StreamLog,
        take: Callable[[Entry], None],
        renew: Callable[[], Awaitable[LogPosition]],
    ) -> None:
        """``take`` gets every entry again; ``renew`` writes the incarnation's own lease entry."""
        self._rosters: Final = rosters
        self._stream: Final = stream
        self._take: Final = take
        self._renew: Final = renew
        self._judged = rosters.version
        self._reading = False
        self._begun = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def judged(self) -> int:
        """The roster version by which everything in the stream was evaluated here."""
        return self._judged

    @property
    def begun(self) -> int:
        """The number of times that a roster has made this incarnation replay the stream."""
        return self._begun

    def begin(self) -> None:
        """The first replay starts now: no second one is needed for rosters that counted before."""
        self._judged, self._reading = self._rosters.version, True

    def changed(self) -> None:
        """The roster or the endorsements changed, and all known state was evaluated by them."""
        idle = self._task is None or self._task.done()
        if not self._reading or (idle and not self._rosters.more):
            self._judged = self._rosters.version
        elif idle and not self._closing:
            self._begun += 1
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
                await self._renew()  # the instances that wait for this incarnation see it there
            except Exception as error:  # noqa: BLE001 - it is tried until it succeeds
                log.warning(
                    "a step of the stream's replay for a new roster failed, and is tried again: %s",
                    describe(error),
                    extra=fields(stream=subjects.CONTROL_STREAM, version=version),
                )
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        """Read everything that was stored when this was called."""
        position = await self._renew()
        following = self._stream.follow(_FromItsStart(self._take))
        try:
            await following.start()
            await following.reached(position.sequence)
        finally:
            await following.close()


class _FromItsStart:
    """A follower without an anchor."""

    def __init__(self, take: Callable[[Entry], None]) -> None:
        self._take: Final = take

    def anchor(self) -> int:
        """The start: everything is delivered."""
        return 0

    def resumed(self, behind: int) -> None:
        """Do nothing: there is no state to void."""

    def went_back(self) -> None:
        """Do nothing: the permanent follower of the stream detects it."""

    def receive(self, entry: Entry) -> None:
        """Process one message."""
        self._take(entry)
