"""When a hold that the customer's key caused may be lifted.

Only the region in which the key refused may lift it: another region's endpoint may never have said
no. It needs successes, all of which began after the hold was durable there, over at least
``settle_s``, and no refusal among them. So neither a success that was in flight when the key was
disabled, nor a key that flaps, lifts anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class _Run:
    held_at: int
    first: float
    last: float


class Settling:
    """Runs of successes by link. Times are this boot's own."""

    def __init__(self, settle_s: float) -> None:
        self.settle_s: Final = settle_s
        self._runs: dict[str, _Run] = {}

    def success(self, link: str, position: int, held_at: int, moment: float, now: float) -> None:
        """Take a success whose prober's mark, from before it asked, is at ``position``.

        ``held_at`` is where the latest hold on the link is durable here (0: it is not);
        ``moment`` is when the own clock knows the probe to have begun at the earliest.
        """
        if not 0 < held_at <= position:
            return
        run = self._runs.get(link)
        if run is None or run.held_at != held_at:
            # Heard now, begun before: from now on is the shorter, safe way to count.
            self._runs[link] = _Run(held_at, now, moment)
        else:
            run.last = max(run.last, moment)

    def refused(self, link: str) -> None:
        """Somebody in this region was refused: begin anew."""
        self._runs.pop(link, None)

    def ripe(self, link: str) -> bool:
        """Whether the holds on the link may be lifted now."""
        run = self._runs.get(link)
        return run is not None and run.last - run.first >= self.settle_s
