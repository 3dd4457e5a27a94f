"""The lease of keys that a Core wrapped or unwrapped: until when they may be used.

A lease is counted from the sending of the request for the keys. Its first half is *young*: a pool
with only older keys requests more. Its last part is a *reserve*: work in progress may use it, and
no work may begin in it, because that would outlive its keys, or its answer would arrive too late to
be accepted. Times are seconds on the elapsed clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError

RESERVE_PART: Final = 0.25
"""The reserve's part of a lease: half-way to it from the middle, where a refill begins, there is as
much time as in the reserve; a refill needs a small part of that."""

RESERVE_MAX_S: Final = 2.0
"""The most seconds of a reserve: many times the duration of a piece of a call and its answer."""

SHORTEST_S: Final = 0.1
"""Seconds of the shortest usable lease: a Core that gives less is about to lose its own lease."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The L3 version that was used, when it was requested, and until when it may be used."""

    l3_version: int
    sent: float
    until: float

    @property
    def young_until(self) -> float:
        """When half of the lease is over."""
        return self.sent + (self.until - self.sent) / 2

    @property
    def begin_until(self) -> float:
        """When work may not begin with it any more; its reserve follows."""
        return self.until - min((self.until - self.sent) * RESERVE_PART, RESERVE_MAX_S)

    def too_short(self, now: float) -> bool:
        """Whether keys that just arrived with it are not usable: it has ended, or is about to."""
        return now >= self.begin_until or self.until - self.sent < SHORTEST_S


def too_short() -> KcmError:
    """Return the error for two leases in a row that are too short."""
    return KcmError(
        Code.UNAVAILABLE,
        "a Core returned keys that end at once, because its own lease is about to end, or its reply"
        " was delayed; try again",
    )
