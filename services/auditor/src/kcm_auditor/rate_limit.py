"""A bound on incidents that an outsider can cause at will. Pure; time is an argument.

Whoever may write to the stream (the broker itself may) can send rubbish or repeat old statements
for ever. Each would cost a line of the journal: the disk would be full of noise, which is one more
way to hide something. So a region gets some such entries per minute in full and a count of others.
"""

from __future__ import annotations

from typing import Final

PER_WINDOW: Final = 60
"""Incidents of one region in one window that are recorded in full: enough to see what it is."""

WINDOW_S: Final = 60.0
"""Seconds of a window."""


class RateLimit:
    """Counts what one region brings."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._passed = 0
        self._held = 0

    def admits(self, now: float) -> bool:
        """Whether to record one more in full; ``now`` is in seconds that only run forward."""
        if now - self._begin >= WINDOW_S and not self._held:
            self._begin, self._passed = now, 0
        if self._passed >= PER_WINDOW:
            self._held += 1
            return False
        self._passed += 1
        return True

    def settle(self, now: float) -> int:
        """How many were only counted, once their window is over; then it starts anew."""
        if not self._held or now - self._begin < WINDOW_S:
            return 0
        held, self._held = self._held, 0
        self._begin, self._passed = now, 0
        return held
