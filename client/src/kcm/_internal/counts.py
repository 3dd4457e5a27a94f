"""What a client has sent and thrown away, so that what is asked again does not stay unseen."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

from kcm_runtime.clock import Clock

log = logging.getLogger(__name__)

TELL_EVERY_S: Final = 60.0
"""Seconds between two warnings of one client, at least."""


@dataclass(slots=True)
class Counts:
    """Since the client was made. A few that are discarded are nothing; many cost time."""

    messages: int = 0
    """Sent, or tried to: those that are asked again count each time."""
    repeated: int = 0
    """Those of them that were asked again."""
    discarded: int = 0
    """Answers that came later than they may be accepted: in time for nobody, or with a lease that
    had ended, as when a Gateway or its Cores cannot renew theirs."""


class Tally:
    """Keeps the counts of one client, and warns when answers are discarded."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._counts: Final = Counts()
        self._told_at = float("-inf")
        self._told = 0

    @property
    def counts(self) -> Counts:
        """A copy."""
        return replace(self._counts)

    def sent(self, *, again: bool) -> None:
        """A message is about to leave."""
        self._counts.messages += 1
        self._counts.repeated += again

    def discarded(self) -> None:
        """An answer came too late; warns, but not for each."""
        self._counts.discarded += 1
        now = self._clock.elapsed()
        if now - self._told_at >= TELL_EVERY_S:
            log.warning(
                "answers came later than they may be accepted and were discarded: %d since the"
                " last such line, %d in all",
                self._counts.discarded - self._told,
                self._counts.discarded,
            )
            self._told_at, self._told = now, self._counts.discarded
