"""Leases: for how long a boot may believe that it knows every hold.

**Control lease.** At ``t0`` the boot writes its lease record and gets the stream sequence ``s0``.
Once its follower has delivered everything through ``s0``, the boot knows every hold that was
durable at ``t0``; the lease runs from ``t0``, not from the acknowledgement. Nothing else renews it:
not a heartbeat, not a direct read, not a stream's info.

Stream sequences are the clock by which instances compare *before*: ``moment(a)`` is the latest
``t0`` whose ``s0`` is at most ``a``, so a statement that names sequence ``a`` was made no earlier
than that moment of this boot's own clock.

**Rollback.** An acknowledgement at or below a sequence seen before the write began, or a stream
with another creation time, means that the stream lost messages: nothing is known any more, until
everything was replayed and what it lacks was written again.

Every lease starts expired. Times are seconds on a clock that runs on in suspend.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from kcm_schemas.registry import FencePolicy

WRITES_KEPT: Final = 256
"""Own writes kept: enough to date a fence or a proof that is several grace periods old."""

EXPIRED: Final = float("-inf")
FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class _Write:
    t0: float
    sequence: int


class ControlLease:
    """What a boot's own writes and deliveries let it believe about its region's stream."""

    def __init__(self, length_s: float) -> None:
        self.length_s: Final = length_s
        self._writes: deque[_Write] = deque(maxlen=WRITES_KEPT)
        self._delivered = 0
        self._created: str | None = None

    @property
    def seen(self) -> int:
        """The highest sequence seen: every write that begins now has to get a higher one."""
        return max(self._delivered, self._writes[-1].sequence if self._writes else 0)

    def wrote(self, t0: float, seen: int, sequence: int, created: str) -> bool:
        """Take an acknowledged own write; ``False`` means rollback.

        ``t0`` and ``seen`` are of the moment before the write was sent: until it is acknowledged,
        more may be delivered, itself included. ``created`` identifies the stream. After a rollback
        nothing is believed until everything was replayed.
        """
        if self._created not in (None, created) or sequence <= seen:
            self.replayed(created)
            return False
        self._created = created
        self._writes.append(_Write(t0, sequence))
        return True

    def delivered(self, sequence: int) -> None:
        """The follower has delivered everything through ``sequence``."""
        self._delivered = max(self._delivered, sequence)

    def replayed(self, created: str | None = None) -> None:
        """Forget everything: what follows is a replay from the start of a stream."""
        self._writes.clear()
        self._delivered = 0
        self._created = created

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


class Fences:
    """Up to which moment this boot knows the other regions, and what a policy makes of it.

    ``fence(o, a)`` says that this region knew everything of region ``o`` when its own stream stood
    at ``a``.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s: Final = grace_s
        self._positions: dict[str, int] = {}

    def learn(self, other: str, position: int) -> None:
        """Take a believed fence; an older one changes nothing."""
        self._positions[other] = max(position, self._positions.get(other, 0))

    def forget(self) -> None:
        """After a rollback positions mean nothing."""
        self._positions.clear()

    def until(self, policy: FencePolicy, others: list[str], lease: ControlLease) -> float:
        """When the fences of a tenant with these other regions end.

        ``all``: every other region has to be known. ``majority`` of n regions: a kill counts once
        it is durable in most, so n - floor(n / 2) regions, this one included, have to be known
        for the two to meet. ``local``: no bound across regions.
        """
        if policy == "local" or not others:
            return FOREVER
        ends = sorted((self._end(other, lease) for other in others), reverse=True)
        if policy == "all":
            return ends[-1]
        regions = len(others) + 1
        needed = regions - regions // 2 - 1
        return FOREVER if needed == 0 else ends[needed - 1]

    def _end(self, other: str, lease: ControlLease) -> float:
        position = self._positions.get(other)
        moment = None if position is None else lease.moment(position)
        return EXPIRED if moment is None else moment + self.grace_s
