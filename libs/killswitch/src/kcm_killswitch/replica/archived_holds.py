"""The archived statements of holds that lift pages end: verified again before they count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, NamedTuple

from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.hold_store_port import HoldStore

log = logging.getLogger(__name__)

BACK_AT_ONCE: Final = 16
"""Holds that are restored in one step: their verification takes about 5 ms."""


class Archived(NamedTuple):
    """Holds from the archive, and the last id that was looked up, if there may be more."""

    states: list[HoldState]
    last: bytes | None


class ArchivedHolds:
    """Reads the archive, for operators and to restore holds that no page ends any more."""

    def __init__(
        self,
        *,
        hold_store: HoldStore,
        learn: Callable[[bytes], object],
        examine: Callable[[bytes], HoldState],
        revocations: Revocations,
    ) -> None:
        """``learn`` applies a hold or lift, and ``examine`` verifies one only."""
        self._hold_store: Final = hold_store
        self._learn: Final = learn
        self._examine: Final = examine
        self._revocations: Final = revocations
        self._back: Final[dict[bytes, None]] = {}
        """Holds whose statements have to be restored."""
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def between(self, least: bytes, most: bytes, count: int) -> Archived:
        """At most ``count`` holds that pages end, by id, both bounds included.

        Only those whose statements this Core has, in the state in which they were archived.
        """
        try:
            found = await asyncio.to_thread(self._hold_store.archived_between, least, most, count)
        except OSError as error:
            log.error(
                "the archive of lifted holds cannot be read, and the list is without them: %s",
                error.strerror or error,
            )
            return Archived([], None)
        states = []
        for raw in found.values():
            try:
                state = self._examine(raw)
            except Untrusted:
                continue
            if self._revocations.holds.ends(state):
                states.append(state)
        return Archived(states, max(found) if len(found) == count else None)

    def restore(self, hold_ids: Iterable[bytes]) -> None:
        """Apply the archived statements of these holds, in the background."""
        self._back.update(dict.fromkeys(hold_ids))
        if self._back and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._restore_all())

    def close(self) -> None:
        """Stop restoring."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    async def _restore_all(self) -> None:
        while self._back and not self._closing:
            some = list(islice(self._back, BACK_AT_ONCE))
            try:
                found = await asyncio.to_thread(self._hold_store.archived, some)
            except Exception as error:  # noqa: BLE001 - a damaged archive must not end this task
                log.critical(
                    "holds that no page ends any more cannot be read from the archive, and are not "
                    "restored here: %s: %s",
                    describe(error),
                    ", ".join(hold_id.hex() for hold_id in some),
                    extra=fields(count=len(some)),
                )
                found = {}
            for hold_id in some:
                self._back.pop(hold_id, None)
                if hold_id in found:
                    try:
                        self._learn(found[hold_id])
                    except Untrusted as error:
                        log.error(
                            "an archived hold that no page ends any more is not believed, and not "
                            "restored here: %s",
                            error,
                            extra=fields(hold=hold_id),
                        )
            await asyncio.sleep(0)
