"""Whether this incarnation and a Core of its region keep on knowing different holds.

Every lease entry carries the digest of the holds that its incarnation knows. For a moment two of
them differ after every kill. But who keeps on differing from a Core while neither learns anything
new has missed something, for what a Core knows it writes to the stream: a broker that lost, or
skipped, a message for one consumer does not say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 5.0
"""Seconds for which two may differ: a hold is written, and delivered, long before."""


@dataclass(slots=True)
class _Difference:
    theirs: bytes
    ours: bytes
    since: float
    asked: bool = False


class Divergence:
    """What the Cores of the region said last, where it was not what this incarnation knew."""

    def __init__(self) -> None:
        self._differ: dict[str, _Difference] = {}

    def heard(self, core: str, theirs: bytes, ours: bytes, now: float) -> bool:
        """Take a Core's digest, beside the own one; whether everything has to be read again.

        Once for each difference: one that is still there after that is not mended by reading.
        """
        known = self._differ.pop(core, None)
        if theirs == ours:
            return False
        if known is None or (known.theirs, known.ours) != (theirs, ours):
            known = _Difference(theirs, ours, now)
        self._differ[core] = known
        if known.asked or now - known.since < PATIENCE_S:
            return False
        for other in self._differ.values():
            other.asked |= (other.theirs, other.ours) == (theirs, ours)
        return True
