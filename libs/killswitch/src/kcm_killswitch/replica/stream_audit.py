"""Cores compare what the region's stream has with what they know to be in it.

A broker that loses one message tells nobody: consumers were delivered it, lease entries are written
on, and what a Core saw in the stream it does not write again. So every Core asks the stream's
leader for a few entries after another, slowly, each incarnation from a place of its own. What is
missing counts as stored no longer and is written again. A leader that is new, that counts fewer
messages than are known, or a consumer that was made anew, is a reason to go through everything at
once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry, Log
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Role

log = logging.getLogger(__name__)

LOOK_S: Final = 30.0
"""Seconds between two looks."""

LOOKED_AT: Final = 32
"""Entries that each look asks for: the next look goes on behind them."""

HURRIED_S: Final = 0.25
"""Seconds between two looks while there is a reason to go through everything: some hundred entries
a second, a few per cent of one processor."""

RETRY_S: Final = 5.0
"""Seconds after which a look that failed is tried again, while there is such a reason."""


class Kept(Protocol):
    """Entries of one kind that the stream was seen to have, in an order that lasts."""

    @property
    def seen(self) -> int:
        """How many there are; asked at every look, so it counts no holds."""
        ...

    def some(self, after: bytes, count: int) -> Sequence[tuple[bytes, str]]:
        """At most ``count`` keys and subjects, behind a key; fewer when there are no more."""
        ...

    def look(self, key: bytes, stored: Entry | None) -> None:
        """The stream's leader has this under a key: see to it that it has what is known."""
        ...


class StreamAudit:
    """Looks through everything that a Core keeps in the stream, for ever."""

    def __init__(self, membership: InstanceContext, stream: Log, kinds: Sequence[Kept]) -> None:
        self._me: Final = membership
        self._stream: Final = stream
        self._kinds: Final = kinds
        self._kind = 0
        self._after = membership.incarnation
        """The key behind which the next look goes on. Incarnations begin at different ones."""
        self._left = 0
        """Entries that are to be looked at in a hurry."""
        self._leader = ""
        self._stir: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin, if this is a Core."""
        if self._me.role is Role.CORE:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def hurry(self) -> None:
        """There is a reason to go through everything now."""
        if self._task is not None:
            self._left = self._all
            self._stir.set()

    def close(self) -> None:
        """Stop."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    @property
    def _all(self) -> int:
        return sum(kind.seen for kind in self._kinds)

    async def _run(self) -> None:
        wait = LOOK_S * (0.5 + self._me.incarnation[0] / 256)  # not all Cores at once
        while not self._closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), wait)
                self._stir.clear()
                await asyncio.sleep(HURRIED_S)
            failed = True
            try:
                if self._me.acts:
                    await self._look()
                failed = False
            except KcmError as error:
                log.warning("the region's stream cannot be looked through: %s", error.detail)
            except Exception as error:  # noqa: BLE001 - who stops looking leaves it to nobody
                log.error("looking through the region's stream: %s", describe(error))
            hurried = RETRY_S if failed else HURRIED_S
            wait = hurried if self._left else LOOK_S

    async def _look(self) -> None:
        """Compare the next few entries."""
        leading = await self._stream.leading()
        # Lease entries and others are in the count, too: it is too high rather than too low.
        if (self._leader and leading.node != self._leader) or (
            leading.messages < self._all and not self._left
        ):
            self._left = self._all
        self._leader = leading.node
        for kind, key, subject in self._next():
            self._kind, self._after = kind, key  # what cannot be read keeps nothing from its turn
            self._kinds[kind].look(key, await self._stream.last(subject))
            self._left = max(0, self._left - 1)

    def _next(self) -> list[tuple[int, bytes, str]]:
        """The next few entries, of one kind after another, each at most once."""
        found: list[tuple[int, bytes, str]] = []
        after, count = self._after, len(self._kinds)
        for step in range(count + 1):
            kind = (self._kind + step) % count
            some = self._kinds[kind].some(after, LOOKED_AT - len(found))
            # At last comes the part of the first kind that lies before where this look began.
            found += [(kind, *one) for one in some if step < count or one[0] <= self._after]
            if len(found) >= LOOKED_AT:
                break
            after = b""
        return found
