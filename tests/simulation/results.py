"""A region's results of finished kills: a bucket by compare-and-set that loses nothing.

What it has lost is made anew from the facts, which the simulation tries all the time.
"""

from __future__ import annotations

from kcm_bus.ports import Entry
from kcm_schemas.codes import Code, KcmError


class SimResults:
    """Implements ``kcm_core.result_store.ResultStore``."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}

    async def read(self, hold_id: bytes) -> Entry | None:
        """What is stored."""
        return self._entries.get(hold_id)

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """By compare-and-set."""
        known = self._entries.get(hold_id)
        if expected != (0 if known is None else known.sequence):
            raise KcmError(Code.CONFLICT)
        self._entries[hold_id] = Entry(expected + 1, "", raw)
