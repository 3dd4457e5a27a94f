"""Counters of a client's messages, so that retries and discarded replies are visible."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

from kcm_runtime.clock import Clock

log = logging.getLogger(__name__)

TELL_EVERY_S: Final = 60.0
"""Minimum seconds between two warnings of one client."""


@dataclass(slots=True)
class Counts:
    """Counters since the client was created. Many discarded replies slow the client down."""

    messages: int = 0
    """Attempts to send a message, repetitions included."""
    repeated: int = 0
    """Repetitions among them."""
    discarded: int = 0
    """Replies that came after the deadline or after their answer lease had ended, for example
    because a Gateway or its Cores cannot renew their leases."""


class Tally:
    """Counts for one client, and logs a warning about discarded replies."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._counts: Final = Counts()
        self._told_at = float("-inf")
        self._told = 0

    @property
    def counts(self) -> Counts:
        """A copy of the counters."""
        return replace(self._counts)

    def sent(self, *, again: bool) -> None:
        """Count a message that is sent now."""
        self._counts.messages += 1
        self._counts.repeated += again

    def discarded(self) -> None:
        """Count a discarded reply; log a warning at most once per ``TELL_EVERY_S``."""
        self._counts.discarded += 1
        now = self._clock.elapsed()
        if now - self._told_at >= TELL_EVERY_S:
            log.warning(
                "discarded replies that came too late: %d since the last warning, %d in all",
                self._counts.discarded - self._told,
                self._counts.discarded,
            )
            self._told_at, self._told = now, self._counts.discarded
