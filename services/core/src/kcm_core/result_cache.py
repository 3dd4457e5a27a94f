"""Results that a Core has in memory: those that it told, and those that other regions gave it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from kcm_trust.verify import SignedResult

RESULTS_MAX: Final = 256
"""Results in one memory; of older ones the store is asked."""

BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of them."""


class ResultCache:
    """The last few results, by hold."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, SignedResult] = OrderedDict()
        self._bytes = 0

    def get(self, hold_id: bytes) -> SignedResult | None:
        """What is kept of a hold."""
        return self._kept.get(hold_id)

    def keep(self, found: SignedResult) -> None:
        """Keep a result in place of the one before, and forget the oldest for want of room."""
        self.forget(found.result.hold_id)
        self._kept[found.result.hold_id] = found
        self._bytes += len(found.raw)
        while len(self._kept) > RESULTS_MAX or self._bytes > BYTES_MAX:
            self.forget(next(iter(self._kept)))

    def forget(self, hold_id: bytes) -> None:
        """Keep nothing of a hold."""
        gone = self._kept.pop(hold_id, None)
        if gone is not None:
            self._bytes -= len(gone.raw)
