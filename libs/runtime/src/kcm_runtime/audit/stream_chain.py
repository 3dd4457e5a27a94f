"""The chain over a region's audit stream, as the broker stores it. Pure.

Theory of operation. A reader of the whole stream (an Auditor, a Core) computes for each message::

    digest = SHA-256(ctx("kcm/v1/audit-stream", digest before, sequence, subject, SHA-256(body)))

from 32 zero bytes before message 1. It covers every stored message, trusted or not. When the stream
is trimmed up to a message, the signed ``Trim`` contains the digest there, and the chain continues
from it: two readers of the same stream always have the same digest at the same sequence, even if
one of them began after a trim.

Two readers can compare only positions whose digest both have kept: the **marks**, which are the
sequences that ``MARK_EVERY`` divides. The latest marks are dense, and older ones increasingly
sparse, so that memory is bounded for every size of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from kcm_schemas import labels
from kcm_schemas.audit import GENESIS

MARK_EVERY: Final = 64
"""Messages between two marks: some seconds of a busy region, some minutes of an idle one."""

MARKS_MAX: Final = 4096
"""Marks that are kept: 0.6 MiB for 260,000 messages, of which the last half is dense."""

_DIGEST: Final = (32).to_bytes(2, "big")
_NUMBER: Final = (8).to_bytes(2, "big")
_LABEL: Final = labels.AUDIT_STREAM.name.encode()
_BEFORE: Final = len(_LABEL).to_bytes(2, "big") + _LABEL + _DIGEST

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """The chain up to and including message ``sequence``, which was stored at ``time_ms``."""

    sequence: int = 0
    digest: bytes = GENESIS
    time_ms: int = 0

    def append(self, sequence: int, subject: str, body: bytes, time_ms: int = 0) -> Place:
        """Return the chain with one more message."""
        return Place(sequence, link(self.digest, sequence, subject, body), time_ms)


def link(previous: bytes, sequence: int, subject: str, body: bytes) -> bytes:
    """Return the next digest; ``subject`` has at most 65,535 bytes, in the broker's form.

    The result is that of ``ctx`` with the label ``AUDIT_STREAM``, without its checks: each Core
    computes it for every message of its region. ``previous`` has 32 bytes.
    """
    name = subject.encode(errors="surrogateescape")  # the bytes that the broker has
    step = sha256(_BEFORE)
    step.update(previous + _NUMBER + sequence.to_bytes(8, "big") + len(name).to_bytes(2, "big"))
    step.update(name + _DIGEST + sha256(body).digest())
    return step.digest()


class Marks:
    """Log positions of one stream, in order; the latest ones are never thinned out."""

    def __init__(self, places: tuple[Place, ...] = (), limit: int = MARKS_MAX) -> None:
        self._limit: Final = limit
        self._places = list(places)

    @property
    def places(self) -> tuple[Place, ...]:
        """All positions, the oldest first."""
        return tuple(self._places)

    @property
    def last(self) -> Place | None:
        """The latest position."""
        return self._places[-1] if self._places else None

    def note(self, place: Place) -> bool:
        """Keep a position if it is a mark; returns whether it is."""
        if place.sequence % MARK_EVERY:
            return False
        self._places.append(place)
        if len(self._places) > self._limit:
            half = len(self._places) // 2
            self._places = self._places[:half:2] + self._places[half:]
        return True

    def drop(self, through: int) -> None:
        """Forget positions before ``through``: the stream no longer has their messages."""
        self._places = [place for place in self._places if place.sequence >= through]


def created_us(created: datetime | None) -> int:
    """Return a stream's creation time in microseconds since 1970; 0 if the broker omits it."""
    return 0 if created is None else (created - _EPOCH) // timedelta(microseconds=1)
