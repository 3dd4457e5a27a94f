"""Time and randomness as ports, so that production and simulation run the same decisions."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks that must not be mixed."""

    def unix_ms(self) -> int:
        """Wall clock in Unix milliseconds: for deadlines set by others, and for people."""
        ...

    def elapsed(self) -> float:
        """Monotonic seconds, which also run during suspend: for durations."""
        ...


class Randomness(Protocol):
    """The source of random bytes that are not secret."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret: nonces, identifiers."""
        ...


class SystemClock:
    """The machine's clocks."""

    def unix_ms(self) -> int:
        """Wall clock in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def elapsed(self) -> float:
        """``CLOCK_BOOTTIME``, which also runs during suspend."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemRandomness:
    """The kernel's random number generator."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret."""
        return os.urandom(size)
