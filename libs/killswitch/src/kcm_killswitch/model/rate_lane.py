"""Lanes: the items that are due, at a bounded rate.

A lane is a heap of moments. Planning and taking cost the logarithm of the number of waiting items,
and no operation visits items that are not due. An item that is planned again leaves an obsolete
entry in the heap, which is removed at its time.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

BURST_S: Final = 0.5
"""Seconds of a lane's rate that may come at once after a pause: two checks of the key monitor."""

T = TypeVar("T")


class Lane(Generic[T]):
    """A rate-limited queue; the item that waited longest comes first."""

    def __init__(self, per_s: float) -> None:
        self._per_s: Final = per_s
        self._most: Final = max(1.0, per_s * BURST_S)
        self._heap: list[tuple[float, int, T]] = []
        self._left = self._most
        self._since: float | None = None

    def plan(self, who: T, due: float, ticket: int) -> None:
        """Make an item due; ``ticket`` distinguishes this plan from earlier ones of the item."""
        heappush(self._heap, (due, ticket, who))

    def take(self, now: float, room: int, holds: dict[T, int]) -> list[T]:
        """At most ``room`` items that are due by ``now`` and are within the rate.

        ``holds`` has the current ticket of each item: a plan under another ticket is left out.
        """
        self._refill(now)
        taken: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            _, ticket, who = self._heap[0]
            if holds.get(who) == ticket:
                if len(taken) >= room or self._left < 1:
                    break
                self._left -= 1
                taken.append(who)
            heappop(self._heap)
        return taken

    def _refill(self, now: float) -> None:
        if self._since is not None:
            self._left = min(self._most, self._left + max(0.0, now - self._since) * self._per_s)
        self._since = now
