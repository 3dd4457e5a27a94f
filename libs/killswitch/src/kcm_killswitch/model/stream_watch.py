"""The watch of whoever says that a kill is complete: since when nothing of the stream was missed.

That somebody is *not* on record says something only to who would have been told. A process that
began a moment ago, that lagged, or whose stream went back may never have heard of an incarnation
whose lease runs. So whoever completes kills keeps a watch. It begins when its consumer was made,
and begins anew where a sequence was skipped: what lay there was replaced before it was delivered.

Every record that was written inside a watch was heard, and every lease from before it has ended
once the watch is as old as the longest lease and its last answer. Times are seconds on a clock that
never stops; sequences are the stream's.
"""

from __future__ import annotations


class Watch:
    """Since when, and behind which sequence, everything of a stream was delivered."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._behind = 0
        self._position = 0

    def resumed(self, behind: int, now: float) -> None:
        """A consumer was made that delivers what lies behind a sequence."""
        self._position = behind
        self._begin(behind, now)

    def delivered(self, sequence: int, now: float) -> bool:
        """An entry was delivered; ``False``: not the next one, and the watch begins anew."""
        followed = sequence == self._position + 1 and self._began is not None
        self._position = sequence
        if not followed:
            self._begin(sequence, now)
        return followed

    def doubted(self, now: float) -> None:
        """What was delivered may not be what the stream has: the watch begins anew."""
        self._begin(self._position, now)

    def age_s(self, now: float) -> float:
        """For how long it has lasted."""
        return 0.0 if self._began is None else max(0.0, now - self._began)

    def before_s(self, place: int, noted: float) -> float:
        """How long it had lasted when something was noted at ``place``; 0 where that lies outside.

        ``noted`` is when this process knew that it lies there.
        """
        return self.age_s(noted) if place > self._behind else 0.0

    def _begin(self, behind: int, now: float) -> None:
        self._began = now
        self._behind = behind
