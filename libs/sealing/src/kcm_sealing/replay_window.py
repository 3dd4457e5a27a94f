"""The counters that a session has accepted: each is accepted once (RFC 4303, section 3.4.3).

A counter is accepted if it is higher than all before, or one of the ``SIZE`` highest and new. A
lower one is refused although it may be new: requests of one session must not overtake so many.
"""

from __future__ import annotations

from typing import Final

SIZE: Final = 4096
"""Counters that are told apart, below the highest one."""

_MASK: Final = (1 << SIZE) - 1


class ReplayWindow:
    """Which counters were accepted, from 1 on."""

    __slots__ = ("_seen", "_top")

    def __init__(self) -> None:
        self._top = 0
        self._seen = 1
        """A bit for each counter, from the highest one down. No counter is 0."""

    def fresh(self, counter: int) -> bool:
        """Whether ``take`` would accept this counter."""
        if counter < 1:
            return False
        below = self._top - counter
        return below < 0 or (below < SIZE and not self._seen >> below & 1)

    def take(self, counter: int) -> bool:
        """Accept a counter, once. The caller has verified that the request is its sender's."""
        if not self.fresh(counter):
            return False
        above = counter - self._top
        if above <= 0:
            self._seen |= 1 << -above
        else:
            self._seen = (self._seen << above & _MASK) | 1 if above < SIZE else 1
            self._top = counter
        return True
