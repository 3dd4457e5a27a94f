"""Expiry of control stream entries that are not needed any more; Cores do this.

A client that may write to the stream can store any number of subjects, and every incarnation
reads all of them before it serves. A Core therefore overwrites an entry with an empty message that
expires if no roster could make the entry valid: it is not a statement, or it belongs to another
place. An entry that only another instance may write stays. So does one that is refused only by the
roster of *this* instance, because another roster may still arrive. Messages of holds that a lift
page ends are removed in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Entry, NotAllowed, StreamLog
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role

EXPIRES: Final = "60s"
"""Lifetime of the empty message: long enough for every follower of the stream to receive it."""

WAITING_MAX: Final = 4096
"""Entries that wait to be cleared; the next replay of the stream finds any further ones."""

STAND_BACK_S: Final = 1.0
"""Upper bound, in seconds, of the random delay before a Core clears: one Core's work suffices."""

RETRY_S: Final = 1.0
"""Seconds between attempts when the stream did not acknowledge the write."""


class EntryExpiry:
    """The queue of entries that a Core has to clear; it clears them one after another."""

    def __init__(self, host: Host, *, stream: StreamLog, done: Callable[[int], None]) -> None:
        """Each time the queue is empty, ``done`` is called with the number of entries cleared."""
        self._me: Final = host.me
        self._stream: Final = stream
        self._done: Final = done
        self._random: Final = host.randomness
        self._places: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def clear(self, entry: Entry) -> bool:
        """Overwrite an entry unless its subject changes first; returns whether it was queued."""
        if self._me.role is not Role.CORE or self._closing or not entry.data:
            return False
        if entry.subject not in self._places and len(self._places) >= WAITING_MAX:
            return False
        self._places[entry.subject] = entry.sequence
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    def close(self) -> None:
        """Stop clearing."""
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
            except NotAllowed:
                pass  # the entry of another instance, which alone may write there
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    await asyncio.sleep(RETRY_S)
                    continue
            if self._places.get(subject) == sequence:
                del self._places[subject]
        self._task = None
        self._done(cleared)
