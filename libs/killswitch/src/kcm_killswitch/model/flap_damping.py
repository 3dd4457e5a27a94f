"""When a hold that a root key caused may be lifted.

Only the region in which the root key refused may lift it: another region's endpoint may never have
refused. A lift needs successes, all of which began after the hold was durable there, over at least
``settle_s``, and no refusal among them. So neither a success that was in flight when the key was
disabled, nor a key that flaps, lifts a hold.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

DAMPED_MAX: Final = 60
"""Maximum factor by which flapping lengthens ``settle_s``: an hour at the usual one minute.

So one key causes about thirty holds a day at most, instead of more than a thousand.
"""

FLAPPING_MS: Final = 24 * 3600 * 1000
"""Milliseconds within which another refusal counts as flapping of the same key."""


@dataclass(slots=True)
class _Run:
    held_at: int
    first: float
    last: float


class FlapDamping:
    """Runs of successes by link. Times are in seconds of this incarnation's clock."""

    def __init__(self, settle_s: float) -> None:
        self.settle_s: Final = settle_s
        self._runs: dict[str, _Run] = {}

    def success(self, link: str, position: int, held_at: int, moment: float, now: float) -> None:
        """Take a success; ``position`` is the prober's log position from before the probe.

        ``held_at`` is where the latest hold on the link is durable here (0: it is not). ``moment``
        is the earliest time at which, by this incarnation's clock, the probe can have begun.
        """
        if not 0 < held_at <= position:
            return
        run = self._runs.get(link)
        if run is None or run.held_at != held_at:
            # Heard now, begun before: to count from now on is the shorter, safe way.
            self._runs[link] = _Run(held_at, now, moment)
        else:
            run.last = max(run.last, moment)

    def refused(self, link: str) -> None:
        """A Core in this region was refused: reset the run of successes."""
        self._runs.pop(link, None)

    def counting(self, link: str) -> bool:
        """Whether a run of successes of a link's key has begun."""
        return link in self._runs

    def ripe(self, link: str, at_least_s: float = 0.0) -> bool:
        """Whether the holds on the link may be lifted now.

        ``at_least_s`` is for a key that has flapped: see ``damped``.
        """
        run = self._runs.get(link)
        return run is not None and run.last - run.first >= max(self.settle_s, at_least_s)


def damped(settle_s: float, refused_ms: Collection[int]) -> float:
    """Seconds of successes that a key needs which refused at these times (Unix milliseconds).

    They double with every further refusal within a day, up to ``DAMPED_MAX`` times ``settle_s``.
    The Cores of a region may each have placed a hold for the same refusal. So refusals that are
    less than ``settle_s`` apart count as one, since a key that settled was lifted in between. Only
    the times of known holds count, so the result survives a restart, and all Cores agree on it.
    """
    times = sorted(refused_ms)
    factor = 1
    began = times[0] if times else 0
    for moment in times:
        if moment - began < settle_s * 1000:
            continue
        factor = min(factor * 2, DAMPED_MAX) if moment - began <= FLAPPING_MS else 1
        began = moment
    return factor * settle_s
