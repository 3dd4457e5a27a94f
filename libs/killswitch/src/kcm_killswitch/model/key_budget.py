"""How near the customers' keys in use are to as many as may be in use, and who was sealed for it.

Somebody has to hear of it before tenants are sealed, once, and not at every look. So ``filling``
begins at nine tenths and ends at eight, and ``crowded`` ends when nobody was sealed for a while.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

FILLING_AT: Final = 0.9
"""Part of the keys that may be in use from which there is a warning."""

FREE_AT: Final = 0.8
"""Part at which the warning ends: below the other one, so that one key does not repeat it."""

CALM_S: Final = 60.0
"""Seconds without a tenant sealed after which it is not crowded any more."""

RECENT_S: Final = 600.0
"""Seconds for which tenants that were sealed are counted as recent."""

SLOT_S: Final = 10.0
"""Seconds that are counted together, so that a count costs the same however many are sealed."""

RECENT_MAX: Final = int(RECENT_S / SLOT_S) + 1
"""Counts that are kept at most."""


class Room(Enum):
    """How much room there is for further keys in use."""

    FREE = "free"
    FILLING = "filling"
    CROWDED = "crowded"
    """Tenants were sealed for it within the last ``CALM_S``."""


class Crowding:
    """What one incarnation has to say of it. Times are its own."""

    def __init__(self) -> None:
        self.room = Room.FREE
        self.since: float | None = None
        """Since when it is not free."""
        self.sealed_all = 0
        """Tenants that this incarnation sealed for it."""
        self.sealed_at: float | None = None
        """When it sealed the last one."""
        self._recent: deque[tuple[float, int]] = deque()

    def sealed(self, tenants: int, now: float) -> None:
        """So many tenants were sealed because of too many keys."""
        self.sealed_all += tenants
        self.sealed_at = now
        if self._recent and now - self._recent[-1][0] < SLOT_S:
            begun, count = self._recent[-1]
            self._recent[-1] = (begun, count + tenants)
        else:
            self._recent.append((now, tenants))
            self._forget(now)

    def look(self, in_use: int, most: int, now: float) -> bool:
        """Judge anew; whether what is to be said has changed."""
        room = self._judge(in_use, most, now)
        if room is self.room:
            return False
        self.room = room
        self.since = None if room is Room.FREE else now
        return True

    def recent(self, now: float) -> int:
        """Tenants that were sealed within the last ``RECENT_S``, by slots."""
        self._forget(now)
        return sum(count for _, count in self._recent)

    def __len__(self) -> int:
        return len(self._recent)

    def _judge(self, in_use: int, most: int, now: float) -> Room:
        if self.sealed_at is not None and now - self.sealed_at < CALM_S:
            return Room.CROWDED
        limit = FILLING_AT if self.room is Room.FREE else FREE_AT
        full = in_use >= limit * most if self.room is Room.FREE else in_use > limit * most
        return Room.FILLING if full else Room.FREE

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] >= RECENT_S:
            self._recent.popleft()
