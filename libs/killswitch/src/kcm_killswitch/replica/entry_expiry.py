"""Entries of the region's stream that are not needed any more: a Core has them expire.

Whoever has the broker's password can store as many subjects as they like, and every incarnation
reads all of them before it serves. What no roster would make believable (it is no statement, or one
of another place) is overwritten by an empty message that expires. What is only not believed *here*,
by the roster that this instance has, stays: another roster may be on its way. Messages of holds
that a page of lifted holds ends go in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kcm_runtime.clock import Randomness
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry, Log
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role

EXPIRES: Final = "60s"
"""For how long the empty message stays, so that whoever follows the stream notices the change."""

WAITING_MAX: Final = 4096
"""Entries that wait to be cleared; further ones are found when the stream is read again."""

STAND_BACK_S: Final = 1.0
"""Seconds, drawn at random, before a Core begins: all of them see the same, one has to do it."""

RETRY_S: Final = 1.0
"""Seconds after which clearing is tried again when the stream did not acknowledge."""


class Clearing:
    """What a Core has to clear, one entry after another."""

    def __init__(
        self,
        membership: InstanceContext,
        stream: Log,
        randomness: Randomness,
        done: Callable[[int], None],
    ) -> None:
        """``done`` is called with how many were cleared in a row, once there is nothing to do."""
        self._me: Final = membership
        self._stream: Final = stream
        self._done: Final = done
        self._random: Final = randomness
        self._places: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def clear(self, entry: Entry) -> bool:
        """Have an entry overwritten, unless something else lies there by then; whether it will."""
        if self._me.role is not Role.CORE or self._closing or not entry.data:
            return False
        if entry.subject not in self._places and len(self._places) >= WAITING_MAX:
            return False
        self._places[entry.subject] = entry.sequence
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    def close(self) -> None:
        """Stop."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        await asyncio.sleep(STAND_BACK_S * self._random.public(1)[0] / 256)
        cleared = 0
        while self._places and not self._closing:
            subject, sequence = next(iter(self._places.items()))
            try:
                await self._stream.put(subject, b"", expected=sequence, ttl=EXPIRES)
                cleared += 1
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    await asyncio.sleep(RETRY_S)
                    continue
            if self._places.get(subject) == sequence:
                del self._places[subject]
        self._task = None
        self._done(cleared)
