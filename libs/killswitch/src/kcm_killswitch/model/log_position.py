"""Marks: a place in a region's stream, named by what lies there.

A peer lease and an attestation say what was known *when the stream stood at a place*. A bare
sequence cannot say that: after a rollback it comes a second time, and an old statement that arrives
late would be dated by the new one. So a mark names a lease entry by its sequence and its nonce, and
whoever reads a mark believes it only when that very record was delivered there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import KeysView
from dataclasses import dataclass
from typing import Final

MARKS_KEPT: Final = 8192
"""Lease entries kept: those of 100 instances for several minutes. An older mark is not believed."""


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A lease entry, or a hold: where it lies, and which one it is (its nonce, or its id)."""

    sequence: int
    nonce: bytes


NOWHERE: Final = LogPosition(0, bytes(16))
"""Where the highest of no holds lies."""


class Marks:
    """The lease entries, or the holds, that were delivered, newest last."""

    def __init__(self) -> None:
        self._nonces: OrderedDict[int, bytes] = OrderedDict()

    def add(self, mark: LogPosition) -> None:
        """A lease entry was delivered."""
        self._nonces[mark.sequence] = mark.nonce
        if len(self._nonces) > MARKS_KEPT:
            self._nonces.popitem(last=False)

    @property
    def sequences(self) -> KeysView[int]:
        """Where lease entries were delivered."""
        return self._nonces.keys()

    def __contains__(self, mark: LogPosition) -> bool:
        return self._nonces.get(mark.sequence) == mark.nonce

    def resumed(self, behind: int) -> None:
        """Forget everything above a sequence: it may be another thing now."""
        for sequence in [sequence for sequence in self._nonces if sequence > behind]:
            del self._nonces[sequence]

    def forget(self) -> None:
        """Forget everything."""
        self._nonces.clear()
