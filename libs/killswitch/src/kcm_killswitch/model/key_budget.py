"""How close the root keys in use are to the maximum, and how many tenants were unloaded for it.

Operators need one warning before tenants are unloaded, and not one at every check. So ``filling``
begins at nine tenths of the maximum and ends at eight. ``crowded`` ends when no tenant was unloaded
for a while.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

FILLING_AT: Final = 0.9
"""Part of the maximum number of keys in use from which there is a warning."""

FREE_AT: Final = 0.8
"""Part at which the warning ends: below ``FILLING_AT``, so that one key does not repeat it."""

CALM_S: Final = 60.0
"""Seconds without an unloaded tenant after which the state is not crowded any more."""

RECENT_S: Final = 600.0
"""Seconds for which unloaded tenants are counted as recent."""

SLOT_S: Final = 10.0
"""Seconds that are counted together, so that the cost does not grow with the number of unloads."""

RECENT_MAX: Final = int(RECENT_S / SLOT_S) + 1
"""Maximum number of counts that are kept."""


class Room(Enum):
    """How much room there is for further keys in use."""

    FREE = "free"
    FILLING = "filling"
    CROWDED = "crowded"
    """Tenants were unloaded because of too many keys within the last ``CALM_S``."""


class KeyBudget:
    """The state of the key budget in one incarnation. Times are of its own clock."""

    def __init__(self) -> None:
        self.room = Room.FREE
        self.since: float | None = None
        """Since when the state is not ``FREE``."""
        self.unloaded_all = 0
        """Number of tenants that this incarnation unloaded because of too many keys."""
        self.unloaded_at: float | None = None
        """When it unloaded the last one."""
        self._recent: deque[tuple[float, int]] = deque()

    def unloaded(self, tenants: int, now: float) -> None:
        """Count tenants that were unloaded because of too many keys."""
        self.unloaded_all += tenants
        self.unloaded_at = now
        if self._recent and now - self._recent[-1][0] < SLOT_S:
            begun, count = self._recent[-1]
            self._recent[-1] = (begun, count + tenants)
        else:
            self._recent.append((now, tenants))
            self._forget(now)

    def look(self, in_use: int, most: int, now: float) -> bool:
        """Evaluate the state; returns whether it has changed, so that it has to be reported."""
        room = self._judge(in_use, most, now)
        if room is self.room:
            return False
        self.room = room
        self.since = None if room is Room.FREE else now
        return True

    def recent(self, now: float) -> int:
        """Number of tenants that were unloaded within the last ``RECENT_S``, by slots."""
        self._forget(now)
        return sum(count for _, count in self._recent)

    def __len__(self) -> int:
        return len(self._recent)

    def _judge(self, in_use: int, most: int, now: float) -> Room:
        if self.unloaded_at is not None and now - self.unloaded_at < CALM_S:
            return Room.CROWDED
        limit = FILLING_AT if self.room is Room.FREE else FREE_AT
        full = in_use >= limit * most if self.room is Room.FREE else in_use > limit * most
        return Room.FILLING if full else Room.FREE

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] >= RECENT_S:
            self._recent.popleft()
