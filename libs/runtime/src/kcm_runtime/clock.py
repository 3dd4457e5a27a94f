"""Time and randomness as ports, so that decisions are the same in production and in simulation."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, never mixed."""

    def unix_ms(self) -> int:
        """Wall clock in Unix milliseconds: for deadlines that others set, and for people."""
        ...

    def elapsed(self) -> float:
        """Seconds that only run forward, also in suspend: for durations."""
        ...


class Randomness(Protocol):
    """Where random bytes come from that are not secret."""

    def public(self, size: int) -> bytes:
        """Random bytes that are not secret: nonces, identifiers."""
        ...


class SystemClock:
    """The machine's clocks."""

    def unix_ms(self) -> int:
        """Wall clock in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def elapsed(self) -> float:
        """``CLOCK_BOOTTIME``, which runs on in suspend."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemRandomness:
    """The kernel's randomness."""

    def public(self, size: int) -> bytes:
        """Random bytes that are not secret."""
        return os.urandom(size)
