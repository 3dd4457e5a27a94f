"""Messages of ended holds that the region's stream still has: a Core lets them expire.

A message may expire once a page that ends its hold is in the stream, and the hold's statement is in
this Core's archive. Until then it stays: it is the only evidence that the hold ever existed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kcm_runtime.nats.ports import Entry

from kcm_killswitch.model import id_set
from kcm_killswitch.replica.hold_store_port import HoldStore

_ANYTHING: Final = b"?"
"""Stands in for a message that expires, whose content is in the archive."""


class EndedMessages:
    """The messages that wait to expire, by group and first byte of the hold's id."""

    def __init__(
        self,
        *,
        hold_store: HoldStore,
        stored_ids: Callable[[str, int], bytes],
        expire: Callable[[Entry], bool],
    ) -> None:
        """``stored_ids`` gives the ids that stored pages end, of a group and first byte.

        ``expire`` makes a message of the stream expire; it returns false if it cannot do so now.
        """
        self._hold_store: Final = hold_store
        self._stored_ids: Final = stored_ids
        self._expire: Final = expire
        self._waiting: Final[dict[tuple[str, int], dict[bytes, Entry]]] = {}

    def __len__(self) -> int:
        """Return the number of messages that wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, group: str, hold_id: bytes, sequence: int, subject: str) -> None:
        """The stream has a message of an ended hold: it waits for the next sweep."""
        waiting = self._waiting.setdefault((group, hold_id[0]), {})
        waiting[hold_id] = Entry(sequence, subject, _ANYTHING)

    def archived(self, hold_id: bytes) -> None:
        """The archive has a hold: its message may expire."""
        for at, waiting in self._waiting.items():
            if at[1] == hold_id[0] and hold_id in waiting:
                self.sweep_some(*at, (hold_id,))
                return

    def sweep(self) -> None:
        """Let all messages expire that may, as far as there is room."""
        for at, waiting in list(self._waiting.items()):
            self.sweep_some(*at)
            if not waiting:
                del self._waiting[at]

    def sweep_some(self, group: str, prefix: int, hold_ids: Sequence[bytes] | None = None) -> None:
        """The same for one group and first byte, and of these holds; by default of all."""
        waiting = self._waiting.get((group, prefix), {})
        if hold_ids is None:
            hold_ids = list(waiting)
        if not waiting or not hold_ids:
            return
        stored = self._stored_ids(group, prefix)
        for hold_id in hold_ids:
            kept = id_set.has(stored, hold_id) and not self._hold_store.archiving(hold_id)
            if kept and self._expire(waiting[hold_id]):
                del waiting[hold_id]

    def forget(self, above: int) -> None:
        """Messages above a sequence may be lost."""
        for at, waiting in self._waiting.items():
            self._waiting[at] = {one: raw for one, raw in waiting.items() if raw.sequence <= above}
