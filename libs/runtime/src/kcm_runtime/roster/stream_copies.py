"""The copies of the roster in force and of its lists that the region's stream is known to have."""

from __future__ import annotations

import heapq
from hashlib import sha256
from typing import Final, NamedTuple

from kcm_schemas import subjects
from kcm_trust.endorsements import pages
from kcm_trust.verify import Verifier

from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext


class Copy(NamedTuple):
    """The sequence of an entry, its SHA-256, and since when it is known to be there."""

    sequence: int
    digest: bytes
    noted: float


class StreamCopies:
    """The entries that the stream must have, and those that it was seen to have."""

    def __init__(self, me: InstanceContext, clock: Clock) -> None:
        self._me: Final = me
        self._clock: Final = clock
        self._seen: dict[str, Copy] = {}
        self._made: tuple[Verifier | None, dict[str, bytes]] = (None, {})

    @property
    def complete(self) -> bool:
        """Whether the stream has the roster in force, and all of its lists that are here."""
        return all(self.stored(at) is not None for at in self.digests())

    def stored(self, subject: str) -> Copy | None:
        """Return the stream's copy under a subject, or ``None`` unless it is in force."""
        copy, digest = self._seen.get(subject), self.digests().get(subject)
        return copy if copy is not None and copy.digest == digest else None

    def lacks(self, subject: str, had: Copy) -> bool:
        """Whether another entry is in the place of ``had``, which still is in force."""
        return self.digests().get(subject) == had.digest and self.stored(subject) is None

    def note(self, subject: str, sequence: int, data: bytes) -> bool:
        """Note an entry of the stream; returns whether it is in force."""
        copy = Copy(sequence, sha256(data).digest(), self._clock.elapsed())
        known = self._seen.get(subject)
        if known is None or known[:2] != copy[:2]:
            self._seen[subject] = copy
        return self.digests().get(subject) == copy.digest

    def drop(self, subject: str) -> None:
        """Forget the entry of a subject: the stream lacks it."""
        self._seen.pop(subject, None)

    def forget(self, above: int) -> bool:
        """Forget entries above a sequence, which may be lost; returns whether there were any."""
        kept = {at: copy for at, copy in self._seen.items() if copy.sequence <= above}
        lost = len(kept) < len(self._seen)
        self._seen = kept
        return lost

    @property
    def seen(self) -> int:
        """How many entries in force the stream was seen to have."""
        return len(self.digests().keys() & self._seen.keys())

    def some(self, after: bytes, count: int) -> list[tuple[bytes, str]]:
        """Return the next ``count`` of them after ``after``, by their subjects."""
        named = self.digests().keys() & self._seen.keys()
        later = (name for name in named if name.encode() > after)
        return [(name.encode(), name) for name in heapq.nsmallest(count, later)]

    def digests(self) -> dict[str, bytes]:
        """Return the SHA-256 of the entries that the stream must have; cached for each verifier."""
        made_for, digests = self._made
        if made_for is not self._me.verifier:
            digests = {at: sha256(data).digest() for at, data in self.wanted()}
            self._made = (self._me.verifier, digests)
        return digests

    def wanted(self) -> list[tuple[str, bytes]]:
        """Return these entries, lists first: a reader of the roster then has its lists."""
        rosters, region = self._me.rosters, self._me.region
        if not rosters.raw:
            return []
        found = [
            (subjects.control_endorsements(region, name, page), raw)
            for name, endorsements in sorted(self._me.verifier.endorsements.items())
            for page, raw in enumerate(pages(endorsements))
        ]
        return [*found, (subjects.control_roster(region), rosters.raw)]
