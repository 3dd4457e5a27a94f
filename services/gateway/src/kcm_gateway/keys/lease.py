"""The lease of keys that a Core made or opened: until when they serve, and when they are too old.

A lease is counted from the sending of the request that brought the keys. Its first half is *young*:
a pool that has only older keys asks for more. Its last part is a *reserve*: work that is under way
may use it, work that begins may not, for it would outlive its keys, or whoever asked would get an
answer that is no longer accepted. Times are seconds on the elapsed clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError

RESERVE_PART: Final = 0.25
"""Part of a lease that is its reserve: as much lies between the half, where a refill is asked for,
and the reserve, where the keys are given up; a refill needs a small part of that."""

RESERVE_MAX_S: Final = 2.0
"""Seconds of a reserve at most: many times what a piece of a call takes, and its answer."""

SHORTEST_S: Final = 0.1
"""Seconds of the shortest lease that is of use: whoever gives less is about to end its own."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Which L3 version was used, when it was asked for, and until when the answer may be used."""

    l3_version: int
    sent: float
    until: float

    @property
    def young_until(self) -> float:
        """When half of it is over."""
        return self.sent + (self.until - self.sent) / 2

    @property
    def begin_until(self) -> float:
        """When nothing may be begun with it any more; its reserve is what follows."""
        return self.until - min((self.until - self.sent) * RESERVE_PART, RESERVE_MAX_S)

    def too_short(self, now: float) -> bool:
        """Whether an answer with it, just come, is of no use: ended, or about to."""
        return now >= self.begin_until or self.until - self.sent < SHORTEST_S


def too_short() -> KcmError:
    """What is told when a Core gave a lease that is of no use, and another one as well."""
    return KcmError(
        Code.UNAVAILABLE,
        "a Core gave keys that end at once, because its own lease is about to end, or its answer"
        " was held up; try again",
    )
