"""The control lease: how long an incarnation may assume that it knows all holds of its region.

At ``t0`` the incarnation writes its lease entry, which gets the stream sequence ``s0``. Once its
follower has delivered everything through ``s0``, the incarnation knows every hold that was durable
at ``t0``. The lease runs from ``t0``, not from the acknowledgement. Nothing else renews it: not a
heartbeat, not a direct read, not a stream's info.

Stream sequences are the clock by which instances compare *before*. ``moment(a)`` is the latest
``t0`` whose ``s0`` is at most ``a``. So a statement that names sequence ``a`` was made no earlier
than that moment of this incarnation's own clock.

**Rollback.** Every write but the first replaces the previous one, by compare-and-set: only a stream
that still has everything up to the previous write stores it. If a write is refused, or is
acknowledged at or below a sequence that was seen before it was sent, the stream has lost messages.
Then nothing is known any more until everything was replayed.

A recreated consumer resumes after the last delivered write of this incarnation (the ``anchor``). It
does not resume after the last delivery, because the entries above the anchor may differ after a
rollback. Nor does it resume after a write that was not delivered yet, because that would skip the
entries before it.

Every lease starts expired. Times are seconds on a clock that continues in suspend.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

WRITES_EXACT: Final = 64
"""The latest writes of this incarnation, all of which are kept."""

SPACING_S: Final = 1.0
"""Minimum distance in seconds between older writes that are kept.

So a date from an older write is at most this much too early, and is never missing, however often an
incarnation has to write.
"""

WRITES_KEPT: Final = 4096
"""Number of writes that are kept.

They are enough to date a peer lease or an attestation as old as any permitted grace.
"""

EXPIRED: Final = float("-inf")
FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class _Write:
    t0: float
    sequence: int


class ControlLease:
    """What an incarnation knows of its region's stream from its own writes and deliveries."""

    def __init__(self, length_s: float) -> None:
        self.length_s: Final = length_s
        self._writes: list[_Write] = []
        self._awaited: deque[int] = deque()
        """Sequences of writes that were not delivered yet."""
        self._delivered = 0
        self._last = 0
        self._anchor = 0

    @property
    def anchor(self) -> int:
        """The sequence of this incarnation's last delivered write; 0 when none was delivered."""
        return self._anchor

    @property
    def position(self) -> int:
        """The sequence through which everything was delivered."""
        return self._delivered

    @property
    def seen(self) -> int:
        """The highest sequence seen: every write that begins now has to get a higher one."""
        return max(self._delivered, self._last)

    @property
    def awaited(self) -> tuple[int, ...]:
        """Writes of this incarnation that were not delivered yet, oldest first."""
        return tuple(self._awaited)

    def wrote(self, t0: float, seen: int, sequence: int) -> bool:
        """Take an acknowledged write of this incarnation; ``False`` means a rollback of the stream.

        ``t0`` and ``seen`` are of the moment before the write was sent: until it is acknowledged,
        more may be delivered, including the write itself.
        """
        if sequence <= seen:
            self.forget()
            return False
        self._writes.append(_Write(t0, sequence))
        self._thin()
        self._await(sequence)
        return True

    def adopt(self, sequence: int) -> bool:
        """Take a write of this incarnation whose acknowledgement was lost; it renews nothing.

        ``False`` means a rollback of the stream: its entry is older than the last write.
        """
        if sequence <= self._last:
            self.forget()
            return False
        self._await(sequence)
        return True

    def delivered(self, sequence: int) -> None:
        """The follower has delivered everything through ``sequence``."""
        self._delivered = max(self._delivered, sequence)
        while self._awaited and self._awaited[0] <= self._delivered:
            self._anchor = self._awaited.popleft()

    def replaced(self, sequence: int) -> None:
        """A later write replaced this one before it was delivered: this one renews nothing.

        The stream keeps only the last message of a subject.
        """
        self._writes = [write for write in self._writes if write.sequence != sequence]
        self._awaited.remove(sequence)

    def resumed(self, behind: int) -> None:
        """The follower resumes after ``behind``: entries that it delivered above may differ now."""
        self._delivered = min(self._delivered, behind)
        self._anchor = min(self._anchor, behind)

    def forget(self) -> None:
        """Forget everything: what follows is a replay from the start of a stream."""
        self._writes.clear()
        self._awaited.clear()
        self._delivered = 0
        self._last = 0
        self._anchor = 0

    def until(self) -> float:
        """When the lease ends, or ``EXPIRED``."""
        moment = self.moment(self._delivered)
        return EXPIRED if moment is None else moment + self.length_s

    def moment(self, sequence: int) -> float | None:
        """The latest ``t0`` of a write at or before ``sequence``, or ``None``."""
        for write in reversed(self._writes):
            if write.sequence <= sequence:
                return write.t0
        return None

    def _await(self, sequence: int) -> None:
        self._last = sequence
        if sequence <= self._delivered:
            self._anchor = sequence
        else:
            self._awaited.append(sequence)

    def _thin(self) -> None:
        at = len(self._writes) - WRITES_EXACT - 1
        if at > 0 and self._writes[at].t0 - self._writes[at - 1].t0 < SPACING_S:
            del self._writes[at]
        elif len(self._writes) > WRITES_KEPT:
            del self._writes[0]
