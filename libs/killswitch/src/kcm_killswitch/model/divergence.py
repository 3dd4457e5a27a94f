"""Whether this incarnation and a Core of its region know different holds for long.

Every lease entry carries the digest of the holds that its incarnation knows. After every kill, two
digests differ for a moment. But an incarnation that keeps differing from a Core, while neither
learns anything new, has missed something, because a Core writes what it knows to the stream. A
broker that lost or skipped a message for one consumer does not report it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 5.0
"""Seconds for which two digests may differ; a hold is written and delivered long before."""


@dataclass(slots=True)
class _Difference:
    theirs: bytes
    ours: bytes
    since: float
    asked: bool = False


class Divergence:
    """The last digests of the region's Cores that were not the digest of this incarnation."""

    def __init__(self) -> None:
        self._differ: dict[str, _Difference] = {}

    def heard(self, core: str, theirs: bytes, ours: bytes, now: float) -> bool:
        """Take a Core's digest and this incarnation's own; whether to replay the stream.

        The answer is ``True`` once for each difference: a difference that remains after a replay is
        not repaired by another one.
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
