"""The port between the reader of a region's audit stream and the recorder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kcm_auditor.arrivals import Arrival, Verdict


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream as the broker describes it: its creation, last and first sequence, and bytes.

    ``made`` is ``created`` in microseconds since 1970; a ``room`` of 0 means no bound.
    """

    created: str
    last: int
    first: int = 0
    used: int = 0
    room: int = 0
    made: int = 0


class Sink(Protocol):
    """The destination of a region's messages. Its coroutines return after the flush to the disk."""

    def position(self, region: str) -> int:
        """Return the position up to which the region's stream is recorded."""
        ...

    def compare(self, region: str, facts: StreamFacts) -> Verdict:
        """Compare the stream with the journal. Changes nothing."""
        ...

    async def opened(self, region: str, facts: StreamFacts, head: bytes) -> None:
        """Record that the stream is read from now on, and what is wrong with it.

        ``head`` is the last statement at this Auditor's place for heads of the region; empty if
        there is none.
        """

    def recorded(self, arrival: Arrival) -> bool:
        """Whether a message is the one that was recorded at its position.

        If that one is not known: whether it contains no events that are not recorded.
        """
        ...

    async def went_back(self, region: str, first: int) -> None:
        """Record that ``first`` is another message than was recorded: all is read again."""

    async def trimmed(self, region: str, statement: bytes, facts: StreamFacts) -> None:
        """Note the last trim in the region's control stream, if it verifies."""

    def noticed(self, region: str, facts: StreamFacts) -> None:
        """Note the state of the stream, for status requests."""

    async def take(self, arrivals: Sequence[Arrival]) -> None:
        """Record messages, in the order of the stream."""

    def reachable(self, region: str, *, up: bool) -> None:
        """Note whether the stream can be read at the moment."""
