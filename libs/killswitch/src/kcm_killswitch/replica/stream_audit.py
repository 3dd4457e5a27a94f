"""Cores compare the region's stream with what they know to be in it.

A broker that loses one message does not report it: consumers have received the message, renewals of
lease entries succeed, and a Core does not write again what it saw in the stream. Every Core
therefore asks the stream's leader for a few entries at a time, slowly, and each incarnation starts
at a different place. A missing entry counts as not stored and is written again. A full pass follows
at once if the leader changed, if the leader counts fewer messages than are known, or if a consumer
was recreated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Role

log = logging.getLogger(__name__)

LOOK_S: Final = 30.0
"""Seconds between two checks."""

LOOKED_AT: Final = 32
"""Entries in each check: the next check continues after them."""

HURRIED_S: Final = 0.25
"""Seconds between two checks during a full pass: about a hundred entries a second, a few per cent
of one processor."""

RETRY_S: Final = 5.0
"""Seconds until a failed check is tried again during a full pass."""


class Kept(Protocol):
    """Entries of one kind that were seen in the stream, in a stable order."""

    @property
    def seen(self) -> int:
        """The number of entries; read at every check, so it must not iterate over them."""
        ...

    def some(self, after: bytes, count: int) -> Sequence[tuple[bytes, str]]:
        """At most ``count`` keys and subjects after a key; fewer if there are no more."""
        ...

    def look(self, key: bytes, stored: Entry | None) -> None:
        """Compare the leader's entry under a key with what is known, and repair it if needed."""
        ...


class StreamAudit:
    """Checks everything that a Core maintains in the stream, in an endless loop."""

    def __init__(self, me: InstanceContext, stream: StreamLog, kinds: Sequence[Kept]) -> None:
        self._me: Final = me
        self._stream: Final = stream
        self._kinds: Final = kinds
        self._kind = 0
        self._after = me.incarnation
        """The key after which the next check continues. Incarnations begin at different keys."""
        self._left = 0
        """Entries that remain in the current full pass."""
        self._leader = ""
        self._stir: Final = asyncio.Event()
        self._tasks: Final = TaskSet()

    def start(self) -> None:
        """Begin, if this is a Core."""
        if self._me.role is Role.CORE:
            self._tasks.spawn(self._run())

    def hurry(self) -> None:
        """Start a full pass."""
        if self._tasks:
            self._left = self._all
            self._stir.set()

    def close(self) -> None:
        """Stop."""
        self._tasks.close()

    @property
    def _all(self) -> int:
        return sum(kind.seen for kind in self._kinds)

    async def _run(self) -> None:
        wait = LOOK_S * (0.5 + self._me.incarnation[0] / 256)  # Cores do not start together
        while not self._tasks.closed:
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
                log.warning(
                    "the region's stream could not be compared with the known entries, it is "
                    "tried again: %s",
                    error.detail,
                    extra=fields(
                        region=self._me.region,
                        stream=subjects.CONTROL_STREAM,
                        code=error.code.value,
                    ),
                )
            except Exception as error:  # noqa: BLE001 - keep checking after any error
                log.error(
                    "the region's stream could not be compared with the known entries, it is "
                    "tried again: %s",
                    describe(error),
                    extra=fields(region=self._me.region, stream=subjects.CONTROL_STREAM),
                )
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
            self._kind, self._after = kind, key  # an unreadable entry does not block the next
            self._kinds[kind].look(key, await self._stream.last(subject))
            self._left = max(0, self._left - 1)

    def _next(self) -> list[tuple[int, bytes, str]]:
        """The next few entries, of one kind after another, each at most once."""
        found: list[tuple[int, bytes, str]] = []
        after, count = self._after, len(self._kinds)
        for step in range(count + 1):
            kind = (self._kind + step) % count
            some = self._kinds[kind].some(after, LOOKED_AT - len(found))
            # The last step covers the part of the first kind that precedes the start of this check.
            found += [(kind, *one) for one in some if step < count or one[0] <= self._after]
            if len(found) >= LOOKED_AT:
                break
            after = b""
        return found
