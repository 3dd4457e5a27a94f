"""The incarnations that are registered in a region, from signed lease entries only.

The completeness of a kill is computed over this list. A party that could remove or change an entry
could make a kill look complete that is not. Therefore:

- An entry belongs to an instance *and* an incarnation. Instances sign only for themselves, so no
  instance can end, date or replace an incarnation of another one.
- The broker's report that a message expired is not signed and counts for nothing. An incarnation is
  removed when it said itself that it ended, or when this process heard nothing of it for ``GONE_S``
  of its own clock, and never before the incarnation's lease has ended.
- No incarnation is forgotten for lack of room. An incarnation that does not fit is refused, and
  until its lease has ended the list is not ``whole``: no kill is complete by it.
- An incarnation is *heard* by the first delivery of an entry with a new nonce. Three things mark it
  as tampered with, so that it is heard no more: an old entry at another position, an entry that
  claims a later start than its position, and any message under the incarnation's name that cannot
  be verified.
- The silence of an incarnation counts as far as the ``Watch`` goes, and no further.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from kcm_schemas.control import Incarnation, Lease

from kcm_killswitch.model.stream_watch import Watch

GONE_S: Final = 60.0
"""Seconds without an entry after which an incarnation counts as gone.

It is many times the renewal interval.
"""

STRETCH: Final = 1.25
"""Factor by which a lease may last longer than its entry says.

It is more than ``(1 + e) / (1 - e)`` for the worst clocks that ``Timing`` allows.
"""

ANSWERS_S: Final = 10.0
"""Seconds after which the last answer under an ended lease is over: twice the D of every bound."""

LEASE_MAX_MS: Final = int(GONE_S * 1000)
"""Milliseconds of the longest lease that is counted.

``Timing`` allows no lease of that length, and an incarnation that claims an endless one would keep
every kill from being complete.
"""

INCARNATIONS_PER_INSTANCE_MAX: Final = 64
"""Maximum number of registered incarnations of one instance.

More than one a second within ``GONE_S`` are no accident.
"""

INCARNATIONS_MAX: Final = 2048
"""Maximum number of registered incarnations of a region.

As many fit into one answer to another region.
"""

NONCES_KEPT: Final = 32
"""Number of latest entries of an incarnation whose nonces are known; they cover over a minute."""

SPACING_S: Final = 1.0
"""Seconds within which entries of one incarnation are heard as one.

This bounds the memory, however often an incarnation has to write.
"""

SAID_MAX_MS: Final = 3_600_000
"""Milliseconds of the longest silence that is reported: an hour, longer than any lease."""

Key = tuple[str, bytes]
"""Instance and incarnation."""


@dataclass(slots=True)
class _Heard:
    """Entries of one incarnation that came together: lowest sequence, first and last arrival."""

    lowest: int
    first: float
    last: float


@dataclass(slots=True)
class _Seen:
    lease: Lease
    latest: int
    lease_ms: int
    """The longest lease that it ever stated, up to the maximum."""
    new: float
    """When its last new entry was heard, inside or outside the watch."""
    ended: bool = False
    tampered: bool = False
    nonces: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    heard: list[_Heard] = field(default_factory=list)
    """What was heard inside the present watch, oldest first."""

    def kept(self, now: float) -> bool:
        """Whether it may still serve, or was heard not long ago."""
        return now - self.new < _kept_s(self.lease_ms)

    def replayed(self, lease: Lease, sequence: int) -> bool:
        """Whether an entry is not what its incarnation wrote there; new nonces are remembered."""
        known = self.nonces.setdefault(lease.nonce, sequence)
        if len(self.nonces) > NONCES_KEPT:
            self.nonces.popitem(last=False)
        return known != sequence or lease.first > sequence

    def hear(self, sequence: int, now: float) -> None:
        """A new entry was delivered."""
        self.new = now
        last = self.heard[-1] if self.heard else None
        if last is not None and now - last.first < SPACING_S:
            last.last = now
        else:
            self.heard.append(_Heard(sequence, now, now))
        if now - self.heard[0].last >= _kept_s(self.lease_ms):
            del self.heard[0]

    def silent_since(self, place: int) -> float:
        """When the last entry below ``place`` was heard, at the latest (0: any); else ``-inf``.

        Leases of entries that are not kept any more have ended.
        """
        below = [one.last for one in self.heard if not place or one.lowest < place]
        return below[-1] if below else float("-inf")


class Incarnations:
    """The incarnations of a region. Times are in seconds on a clock that never stops."""

    def __init__(self) -> None:
        self.watch: Final = Watch()
        self._seen: dict[Key, _Seen] = {}
        self._refused_until = float("-inf")

    def take(self, lease: Lease, sequence: int, now: float) -> None:
        """Take a verified lease entry at ``sequence``; an ended incarnation does not return."""
        key, lease_ms = (lease.instance, lease.incarnation), min(lease.lease_ms, LEASE_MAX_MS)
        seen = self._seen.pop(key, None)
        if seen is None:
            if not self._room(lease.instance, now):
                self._refused_until = max(self._refused_until, now + _kept_s(lease_ms))
                return
            seen = _Seen(lease, sequence, lease_ms, now)
        self._seen[key] = seen  # the incarnation heard last is last in the order
        again = seen.nonces.get(lease.nonce) == sequence
        if seen.replayed(lease, sequence):
            seen.tampered = True
        elif not again:
            seen.hear(sequence, now)
        seen.lease, seen.latest = lease, sequence
        seen.lease_ms = max(seen.lease_ms, lease_ms)
        seen.ended = seen.ended or lease.ended

    def tampered(self, instance: str, incarnation: bytes, now: float) -> None:
        """An incarnation's lease entry was replaced by one that it did not write."""
        seen = self._seen.get((instance, incarnation))
        if seen is not None:
            seen.tampered = True
        else:
            self.doubted(now)

    def resumed(self, behind: int, now: float) -> None:
        """The stream is followed after a sequence: a new watch begins."""
        self.watch.resumed(behind, now)
        self._unhear()

    def delivered(self, sequence: int, now: float) -> None:
        """An entry was delivered; called before ``take``."""
        if not self.watch.delivered(sequence, now):
            self._unhear()

    def doubted(self, now: float) -> None:
        """Discard what was heard before: it does not count any more."""
        self.watch.doubted(now)
        self._unhear()

    def knows(self, instance: str, incarnation: bytes) -> bool:
        """Whether an incarnation's entry was read, and the incarnation did not end."""
        seen = self._seen.get((instance, incarnation))
        return seen is not None and not seen.ended

    def whole(self, now: float) -> bool:
        """Whether no incarnation whose lease may still run was refused for lack of room."""
        return now >= self._refused_until

    def registered(self, now: float, place: int = 0) -> list[Incarnation]:
        """Every incarnation that may hold keys.

        ``silent_ms`` is for how long no entry of it below ``place`` (0: at any position) was heard,
        inside the watch; 0 if nothing that was heard counts. ``quiet_ms`` is the same for any
        entry.
        """
        self._prune(now)
        return [self._incarnation(one, now, place) for one in self._seen.values() if not one.ended]

    def _incarnation(self, seen: _Seen, now: float, place: int) -> Incarnation:
        silent_s, quiet_s = (
            min(self.watch.age_s(now), now - seen.silent_since(below)) for below in (place, 0)
        )
        return Incarnation(
            instance=seen.lease.instance,
            incarnation=seen.lease.incarnation,
            role=seen.lease.role,
            first=seen.lease.first,
            latest=seen.latest,
            lease_ms=seen.lease_ms,
            silent_ms=0 if seen.tampered else said_ms(silent_s),
            quiet_ms=0 if seen.tampered else said_ms(quiet_s),
            roster=seen.lease.roster,
        )

    def _unhear(self) -> None:
        for seen in self._seen.values():
            seen.heard.clear()

    def _room(self, instance: str, now: float) -> bool:
        """Whether one more incarnation of an instance can be taken; those that ended make room."""
        own = [key for key in self._seen if key[0] == instance]
        if len(own) < INCARNATIONS_PER_INSTANCE_MAX and len(self._seen) < INCARNATIONS_MAX:
            return True
        self._prune(now)
        ended = [key for key in own if key in self._seen and self._seen[key].ended]
        for key in ended:
            del self._seen[key]
        count = sum(key[0] == instance for key in self._seen)
        return count < INCARNATIONS_PER_INSTANCE_MAX and len(self._seen) < INCARNATIONS_MAX

    def _prune(self, now: float) -> None:
        self._seen = {key: one for key, one in self._seen.items() if one.kept(now)}


def said_ms(seconds: float) -> int:
    """A duration as it is reported, in milliseconds: never longer than it was."""
    return min(SAID_MAX_MS, max(0, int(seconds * 1000)))


def _kept_s(lease_ms: int) -> float:
    return max(GONE_S, lease_ms / 1000 * STRETCH + ANSWERS_S)
