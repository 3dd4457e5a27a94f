"""The control lease: how long an incarnation may believe that it knows all holds of its region.

At ``t0`` the incarnation writes its lease entry and gets the stream sequence ``s0``. Once its
follower has delivered everything through ``s0``, the incarnation knows every hold that was durable
at ``t0``; the lease runs from ``t0``, not from the acknowledgement. Nothing else renews it: not a
heartbeat, not a direct read, not a stream's info.

Stream sequences are the clock by which instances compare *before*: ``moment(a)`` is the latest
``t0`` whose ``s0`` is at most ``a``, so a statement that names sequence ``a`` was made no earlier
than that moment of this incarnation's own clock.

**Rollback.** Every write but the first replaces the one before, by compare-and-set: it is only
stored in a stream that still has everything up to that one. Where it is refused, or acknowledged at
or below what was seen before it was sent, the stream lost messages, and nothing is known any more
until everything was replayed. A consumer that is made anew goes on behind the last own write that
was delivered (``anchor``), and not behind the last delivery, for above the anchor the stream may be
another one; nor behind an own write that was not delivered yet, for that skips what lies before it.

Every lease starts expired. Times are seconds on a clock that runs on in suspend.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

WRITES_EXACT: Final = 64
"""The latest own writes, which are all kept."""

SPACING_S: Final = 1.0
"""Seconds between older ones that are kept: what they date is dated so much earlier at most, but
never not at all, however often an incarnation has to write."""

WRITES_KEPT: Final = 4096
"""Own writes kept: enough to date a peer lease or an attestation that is as old as any grace may
be."""

EXPIRED: Final = float("-inf")
FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class _Write:
    t0: float
    sequence: int


class ControlLease:
    """What an incarnation's own writes and deliveries let it believe about its region's stream."""

    def __init__(self, length_s: float) -> None:
        self.length_s: Final = length_s
        self._writes: list[_Write] = []
        self._awaited: deque[int] = deque()
        """Own writes that were not delivered yet."""
        self._delivered = 0
        self._last = 0
        self._anchor = 0

    @property
    def anchor(self) -> int:
        """The sequence of the last own write that was delivered; 0 when none was."""
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
        """Own writes that were not delivered yet, oldest first."""
        return tuple(self._awaited)

    def wrote(self, t0: float, seen: int, sequence: int) -> bool:
        """Take an acknowledged own write; ``False`` means that the stream went back.

        ``t0`` and ``seen`` are of the moment before the write was sent: until it is acknowledged,
        more may be delivered, itself included.
        """
        if sequence <= seen:
            self.forget()
            return False
        self._writes.append(_Write(t0, sequence))
        self._thin()
        self._await(sequence)
        return True

    def adopt(self, sequence: int) -> bool:
        """Take an own write whose acknowledgement was lost; it renews nothing.

        ``False`` means that the stream went back: it has an older one than the last.
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
        """A later own write took the place of this one before it was delivered: it renews nothing.

        The stream keeps the last message of a subject only.
        """
        self._writes = [write for write in self._writes if write.sequence != sequence]
        self._awaited.remove(sequence)

    def resumed(self, behind: int) -> None:
        """The follower goes on behind ``behind``: what it delivered above may be another thing."""
        self._delivered = min(self._delivered, behind)
        self._anchor = min(self._anchor, behind)

    def forget(self) -> None:
        """Nothing is known any more: what follows is a replay from the start of a stream."""
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
        """The latest own ``t0`` that lies before ``sequence``, or ``None``."""
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
