"""Exponential back-off between attempts: one schedule for all retry loops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final


class Backoff:
    """The waits between the attempts of one operation: doubled up to a maximum, with jitter."""

    def __init__(
        self,
        first_s: float,
        most_s: float,
        *,
        jitter: tuple[float, float] = (1.0, 1.0),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """The first wait is ``first_s`` seconds; no wait is above ``most_s`` before jitter.

        Each wait is multiplied by a factor between the bounds of ``jitter``, which ``uniform``
        draws; equal bounds draw nothing.
        """
        self._first_s: Final = first_s
        self._most_s: Final = most_s
        self._jitter: Final = jitter
        self._uniform: Final = uniform
        self._next_s = first_s

    def reset(self) -> None:
        """Begin again with the first wait: an attempt succeeded."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """Return the next wait in seconds, and double the one after it."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._most_s)
        low, high = self._jitter
        return wait_s if low == high == 1.0 else wait_s * self._uniform(low, high)

    async def wait(self) -> None:
        """Sleep for the next wait."""
        await asyncio.sleep(self.next_s())
