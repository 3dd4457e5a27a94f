"""Results that a Core keeps in memory: those that it reported, and those that it has checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from kcm_trust.verify import SignedResult

RESULTS_MAX: Final = 256
"""Maximum number of results in one cache; older ones are read from the store."""

BYTES_MAX: Final = 16 * 1024 * 1024
"""Maximum total size of these results in bytes."""


class ResultCache:
    """The most recent results, by hold."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, SignedResult] = OrderedDict()
        self._stored: set[bytes] = set()
        self._bytes = 0

    def get(self, hold_id: bytes) -> SignedResult | None:
        """The cached result of a hold."""
        return self._kept.get(hold_id)

    def is_stored(self, hold_id: bytes) -> bool:
        """Whether the cached result of a hold was ever seen in the store."""
        return hold_id in self._stored

    def keep(self, found: SignedResult, *, stored: bool = False) -> None:
        """Keep a result in place of the previous one; evict the oldest when there is no room."""
        hold_id = found.result.hold_id
        known = self._kept.get(hold_id)
        same = known is not None and known.result == found.result
        stored = stored or (same and hold_id in self._stored)
        self.forget(hold_id)
        self._kept[hold_id] = found
        if stored:
            self._stored.add(hold_id)
        self._bytes += len(found.raw)
        while len(self._kept) > RESULTS_MAX or self._bytes > BYTES_MAX:
            self.forget(next(iter(self._kept)))

    def forget(self, hold_id: bytes) -> None:
        """Remove the result of a hold."""
        gone = self._kept.pop(hold_id, None)
        self._stored.discard(hold_id)
        if gone is not None:
            self._bytes -= len(gone.raw)
