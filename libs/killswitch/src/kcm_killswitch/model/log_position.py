"""Log positions: a place in a region's stream, named by the entry there.

A peer lease and an attestation say what was known *when the stream was at a position*. A bare
sequence cannot say that: after a rollback it is used a second time, and an old statement that
arrives late would get the date of the new entry. So a log position names a lease entry by its
sequence and its nonce. A reader accepts it only if that very entry was delivered there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import KeysView
from dataclasses import dataclass
from typing import Final

MARKS_KEPT: Final = 8192
"""Number of lease entries that are kept: those of 100 instances for several minutes.

An older log position is not accepted.
"""


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """The position of a lease entry or hold: its sequence, and its nonce or id."""

    sequence: int
    nonce: bytes


NOWHERE: Final = LogPosition(0, bytes(16))
"""The highest position of a hold if there are no holds."""


class LogPositions:
    """The lease entries, or the holds, that were delivered, newest last."""

    def __init__(self) -> None:
        self._nonces: OrderedDict[int, bytes] = OrderedDict()

    def add(self, position: LogPosition) -> None:
        """A lease entry was delivered."""
        self._nonces[position.sequence] = position.nonce
        if len(self._nonces) > MARKS_KEPT:
            self._nonces.popitem(last=False)

    @property
    def sequences(self) -> KeysView[int]:
        """The sequences at which lease entries were delivered."""
        return self._nonces.keys()

    def __contains__(self, position: LogPosition) -> bool:
        return self._nonces.get(position.sequence) == position.nonce

    def resumed(self, behind: int) -> None:
        """Forget everything above a sequence, where entries may differ now."""
        for sequence in [sequence for sequence in self._nonces if sequence > behind]:
            del self._nonces[sequence]

    def forget(self) -> None:
        """Forget everything."""
        self._nonces.clear()
