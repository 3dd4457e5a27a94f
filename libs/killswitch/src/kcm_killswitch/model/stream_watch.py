"""The watch of a Core that completes kills: since when it has missed nothing of the stream.

A Core that completes kills concludes from the absence of a lease entry that an incarnation does not
serve. It may do so only if it would have received the entry. A Core that started a moment ago, that
lagged, or whose stream was rolled back may have missed the entry of an incarnation whose lease is
still running. So it keeps a watch. The watch begins when its consumer is created. It restarts when
a sequence was skipped, because the message there was replaced before it was delivered.

Every entry that is written during a watch is received. Every lease from before the watch has ended
once the watch is older than the longest lease and the longest answer lease together. Times are
seconds on a clock that never stops; sequences are those of the stream.
"""

from __future__ import annotations


class Watch:
    """The time and the sequence since which everything of a stream was delivered."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._behind = 0
        self._position = 0

    def resumed(self, behind: int, now: float) -> None:
        """A consumer was created that delivers the entries after a sequence."""
        self._position = behind
        self._begin(behind, now)

    def delivered(self, sequence: int, now: float) -> bool:
        """An entry was delivered; ``False``: it is not the next one, and the watch restarts."""
        followed = sequence == self._position + 1 and self._began is not None
        self._position = sequence
        if not followed:
            self._begin(sequence, now)
        return followed

    def doubted(self, now: float) -> None:
        """The deliveries may not be what the stream has: restart the watch."""
        self._begin(self._position, now)

    def age_s(self, now: float) -> float:
        """The age of the watch in seconds."""
        return 0.0 if self._began is None else max(0.0, now - self._began)

    def before_s(self, place: int, noted: float) -> float:
        """The age of the watch when ``place`` was noted, in seconds; 0 if it is outside the watch.

        ``noted`` is when this process knew that the hold is at ``place``.
        """
        return self.age_s(noted) if place > self._behind else 0.0

    def _begin(self, behind: int, now: float) -> None:
        self._began = now
        self._behind = behind
