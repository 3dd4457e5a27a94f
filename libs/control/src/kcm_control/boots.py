"""Which boots are on record in a region, from nothing but signed lease records.

Completeness of a kill is computed over this list, so whoever could remove or change an entry could
make a kill look complete that is not. Therefore:

- An entry belongs to an instance *and* a boot. Instances sign for themselves only, so nobody can
  end, date or replace a boot of somebody else.
- The broker's word that a record expired is not signed and counts for nothing: an entry goes when
  its boot said so itself, or when this process heard nothing of it for ``GONE_S`` of its own clock.
- ``first`` is what the boot signed. A boot's very first record cannot name it, and its replay would
  look like a later start: it counts as "unknown", which is never after any hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.control import Boot, Lease

GONE_S: Final = 60.0
"""Seconds without a record after which a boot counts as gone: many times the renewal interval."""

BOOTS_PER_INSTANCE_MAX: Final = 16
"""Boots of one instance on record: more restarts than that within ``GONE_S`` are no accident."""

Key = tuple[str, bytes]
"""Instance and boot."""


@dataclass(frozen=True, slots=True)
class _Seen:
    boot: Boot
    heard: float
    ended: bool


class BootRecords:
    """The boots of a region by instance and boot. Times in seconds on a clock that never stops."""

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}

    def take(self, lease: Lease, sequence: int, now: float) -> None:
        """Take a verified lease record stored at ``sequence``; an ended boot does not come back."""
        key = (lease.instance, lease.boot)
        known = self._seen.pop(key, None)
        boot = Boot(
            instance=lease.instance,
            boot=lease.boot,
            role=lease.role,
            first=lease.first,
            latest=sequence,
            lease_ms=lease.lease_ms,
        )
        ended = lease.ended or (known is not None and known.ended)
        self._seen[key] = _Seen(boot, now, ended)
        own = [other for other in self._seen if other[0] == lease.instance]
        for oldest in own[:-BOOTS_PER_INSTANCE_MAX]:
            del self._seen[oldest]

    def knows(self, instance: str, boot: bytes) -> bool:
        """Whether a boot's record was read, and it did not end."""
        seen = self._seen.get((instance, boot))
        return seen is not None and not seen.ended

    def on_record(self, now: float) -> list[Boot]:
        """Every boot that may hold keys."""
        self._seen = {key: one for key, one in self._seen.items() if now - one.heard < GONE_S}
        return [one.boot for one in self._seen.values() if not one.ended]
