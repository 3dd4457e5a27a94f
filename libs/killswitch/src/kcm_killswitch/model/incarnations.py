"""Which boots are on record in a region, from nothing but signed lease records.

Completeness of a kill is computed over this list, so whoever could remove or change an entry could
make a kill look complete that is not. Therefore:

- An entry belongs to an instance *and* a boot. Instances sign for themselves only, so nobody can
  end, date or replace a boot of somebody else.
- The broker's word that a record expired is not signed and counts for nothing: an entry goes when
  its boot said so itself, or when this process heard nothing of it for ``GONE_S`` of its own clock,
  and never before its own lease has ended.
- Nobody is forgotten for want of room. Who cannot be taken is refused, and until that one's lease
  has ended the list is not ``whole``: no kill is complete by it.
- A boot is *heard* by the first delivery of a record with a new nonce. An old one in another place,
  one that claims to have begun later than it lies, and whatever lies under a boot's name and cannot
  be verified, mark the boot as tampered with: nothing that is heard of it counts.
- That a boot fell silent counts as far as the ``Watch`` goes, and no further.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from kcm_schemas.control import Boot, Lease

from kcm_killswitch.model.stream_watch import Watch

GONE_S: Final = 60.0
"""Seconds without a record after which a boot counts as gone: many times the renewal interval."""

STRETCH: Final = 1.25
"""By how much a lease may take longer than it says: more than ``(1 + e) / (1 - e)`` of the worst
clocks that ``Timing`` allows."""

ANSWERS_S: Final = 10.0
"""Seconds in which the last answer of an ended lease is over: twice the D of every bound."""

LEASE_MAX_MS: Final = int(GONE_S * 1000)
"""Milliseconds of the longest lease that is counted: ``Timing`` allows none that is as long, and
who claims an endless one would keep every kill from being complete."""

BOOTS_PER_INSTANCE_MAX: Final = 64
"""Boots of one instance on record: more than one a second within ``GONE_S`` are no accident."""

BOOTS_MAX: Final = 2048
"""Boots of a region on record: as many as fit into one answer to another region."""

NONCES_KEPT: Final = 32
"""Latest records of a boot whose nonces are known: those of more than a minute."""

SPACING_S: Final = 1.0
"""Seconds within which records of one boot are heard as one, however often it has to write."""

SAID_MAX_MS: Final = 3_600_000
"""Milliseconds of the longest silence that is told: an hour, longer than any lease."""

Key = tuple[str, bytes]
"""Instance and boot."""


@dataclass(slots=True)
class _Heard:
    """Records of one boot that came together: the lowest sequence, when the first and last came."""

    lowest: int
    first: float
    last: float


@dataclass(slots=True)
class _Seen:
    lease: Lease
    latest: int
    lease_ms: int
    """The longest that it ever said, as far as it counts."""
    new: float
    """When its last new record was heard, whatever the watch."""
    ended: bool = False
    tampered: bool = False
    nonces: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    heard: list[_Heard] = field(default_factory=list)
    """Inside the present watch, oldest first."""

    def kept(self, now: float) -> bool:
        """Whether it may still serve, or was heard not long ago."""
        return now - self.new < _kept_s(self.lease_ms)

    def replayed(self, lease: Lease, sequence: int) -> bool:
        """Whether a record is not what its boot wrote in this place; new ones are remembered."""
        known = self.nonces.setdefault(lease.nonce, sequence)
        if len(self.nonces) > NONCES_KEPT:
            self.nonces.popitem(last=False)
        return known != sequence or lease.first > sequence

    def hear(self, sequence: int, now: float) -> None:
        """A new record was delivered."""
        self.new = now
        last = self.heard[-1] if self.heard else None
        if last is not None and now - last.first < SPACING_S:
            last.last = now
        else:
            self.heard.append(_Heard(sequence, now, now))
        if now - self.heard[0].last >= _kept_s(self.lease_ms):
            del self.heard[0]

    def silent_since(self, place: int) -> float:
        """When the last record below ``place`` was heard, at the latest (0: any); else ``-inf``.

        Of what is not kept any more, the lease has ended.
        """
        below = [one.last for one in self.heard if not place or one.lowest < place]
        return below[-1] if below else float("-inf")


class BootRecords:
    """The boots of a region by instance and boot. Times in seconds on a clock that never stops."""

    def __init__(self) -> None:
        self.watch: Final = Watch()
        self._seen: dict[Key, _Seen] = {}
        self._refused_until = float("-inf")

    def take(self, lease: Lease, sequence: int, now: float) -> None:
        """Take a verified lease record stored at ``sequence``; an ended boot does not come back."""
        key, lease_ms = (lease.instance, lease.boot), min(lease.lease_ms, LEASE_MAX_MS)
        seen = self._seen.pop(key, None)
        if seen is None:
            if not self._room(lease.instance, now):
                self._refused_until = max(self._refused_until, now + _kept_s(lease_ms))
                return
            seen = _Seen(lease, sequence, lease_ms, now)
        self._seen[key] = seen  # those that were heard last stand last
        again = seen.nonces.get(lease.nonce) == sequence
        if seen.replayed(lease, sequence):
            seen.tampered = True
        elif not again:
            seen.hear(sequence, now)
        seen.lease, seen.latest = lease, sequence
        seen.lease_ms = max(seen.lease_ms, lease_ms)
        seen.ended = seen.ended or lease.ended

    def tampered(self, instance: str, boot: bytes, now: float) -> None:
        """Something lies in place of a boot's record that this boot did not write."""
        seen = self._seen.get((instance, boot))
        if seen is not None:
            seen.tampered = True
        else:
            self.doubted(now)

    def resumed(self, behind: int, now: float) -> None:
        """The stream is followed behind a sequence: a new watch."""
        self.watch.resumed(behind, now)
        self._unhear()

    def delivered(self, sequence: int, now: float) -> None:
        """An entry is delivered, before it is taken."""
        if not self.watch.delivered(sequence, now):
            self._unhear()

    def doubted(self, now: float) -> None:
        """Nothing that was heard before counts."""
        self.watch.doubted(now)
        self._unhear()

    def knows(self, instance: str, boot: bytes) -> bool:
        """Whether a boot's record was read, and it did not end."""
        seen = self._seen.get((instance, boot))
        return seen is not None and not seen.ended

    def whole(self, now: float) -> bool:
        """Whether nobody whose lease may run was refused for want of room."""
        return now >= self._refused_until

    def on_record(self, now: float, place: int = 0) -> list[Boot]:
        """Every boot that may hold keys.

        ``silent_ms`` is for how long no record of it that lies below ``place`` (0: anywhere) was
        heard, inside the watch; 0 where nothing that was heard counts. ``quiet_ms`` is the same of
        any record.
        """
        self._prune(now)
        return [self._boot(one, now, place) for one in self._seen.values() if not one.ended]

    def _boot(self, seen: _Seen, now: float, place: int) -> Boot:
        silent_s, quiet_s = (
            min(self.watch.age_s(now), now - seen.silent_since(below)) for below in (place, 0)
        )
        return Boot(
            instance=seen.lease.instance,
            boot=seen.lease.boot,
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
        """Whether one more boot of an instance can be taken; those that ended make room."""
        own = [key for key in self._seen if key[0] == instance]
        if len(own) < BOOTS_PER_INSTANCE_MAX and len(self._seen) < BOOTS_MAX:
            return True
        self._prune(now)
        ended = [key for key in own if key in self._seen and self._seen[key].ended]
        for key in ended:
            del self._seen[key]
        count = sum(key[0] == instance for key in self._seen)
        return count < BOOTS_PER_INSTANCE_MAX and len(self._seen) < BOOTS_MAX

    def _prune(self, now: float) -> None:
        self._seen = {key: one for key, one in self._seen.items() if one.kept(now)}


def said_ms(seconds: float) -> int:
    """A duration as it is told, in milliseconds: never longer than it was."""
    return min(SAID_MAX_MS, max(0, int(seconds * 1000)))


def _kept_s(lease_ms: int) -> float:
    return max(GONE_S, lease_ms / 1000 * STRETCH + ANSWERS_S)
