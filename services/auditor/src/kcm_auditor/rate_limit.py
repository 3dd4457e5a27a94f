"""A bound on incidents that outside parties can cause at will. Pure; time is an argument.

A client that may write to the stream, or the broker, can send invalid messages or repeat old
statements for ever. Each would cost a line of the journal: a disk full of noise is one more way to
hide something. So a region gets a number of such entries per minute in full, and a count of others.
"""

from __future__ import annotations

from typing import Final

PER_WINDOW: Final = 60
"""Incidents of one region in one window that are recorded in full: enough to see their nature."""

WINDOW_S: Final = 60.0
"""Seconds of a window."""


class RateLimit:
    """Counts the incidents of one region."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._passed = 0
        self._held = 0

    def admits(self, now: float) -> bool:
        """Whether to record one more in full; ``now`` is in monotonic seconds."""
        if now - self._begin >= WINDOW_S and not self._held:
            self._begin, self._passed = now, 0
        if self._passed >= PER_WINDOW:
            self._held += 1
            return False
        self._passed += 1
        return True

    def settle(self, now: float) -> int:
        """Return how many were only counted, once their window is over; then a new one begins."""
        if not self._held or now - self._begin < WINDOW_S:
            return 0
        held, self._held = self._held, 0
        self._begin, self._passed = now, 0
        return held
