"""Key leases: they start with attestations that a root key was used in the region with success.

An attestation names what was used: the link and its revision, the version of the key, and the
principal. It serves only instances that use the very same. It carries the prober's log position
from *before* the use of the key. A reader takes its own latest write before that position as the
moment from which the lease runs. Instances share attestations, so a key is used once an interval,
and not once for every replica and every tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, ControlLease


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What is used: a version of a root key, through a revision of its link."""

    link: str
    link_revision: int
    key_version: str


@dataclass(frozen=True, slots=True, order=True)
class AttestedKey:
    """The subject of an attestation: a target, and the principal that used it."""

    target: Target
    principal: str


class Attestations:
    """The latest accepted attestation of every key."""

    def __init__(self, length_s: float) -> None:
        self.length_s: Final = length_s
        self._positions: dict[str, dict[AttestedKey, int]] = {}
        """By link, so that a refusal looks at the keys of one link only."""
        self.shortened = 0
        """Raised whenever the lease of any key may have become shorter."""

    def __len__(self) -> int:
        """Return the number of keys of which an attestation counts."""
        return sum(map(len, self._positions.values()))

    def learn(self, key: AttestedKey, position: int) -> None:
        """Take an accepted attestation; an older one changes nothing."""
        known = self._positions.setdefault(key.target.link, {})
        known[key] = max(position, known.get(key, 0))

    def refuse(self, link: str) -> None:
        """Drop all attestations of a link."""
        self.shortened += 1
        self._positions.pop(link, None)

    def resumed(self, behind: int) -> None:
        """Reduce positions above ``behind`` to it, because the entries there may differ now.

        A use after a higher position was also a use after ``behind``.
        """
        self.shortened += 1
        for known in self._positions.values():
            known.update((key, min(a, behind)) for key, a in known.items())

    def forget(self) -> None:
        """Drop all positions: after a rollback they mean nothing."""
        self.shortened += 1
        self._positions.clear()

    def until(self, key: AttestedKey, lease: ControlLease) -> float:
        """When the lease of a key ends, or ``EXPIRED``."""
        position = self._positions.get(key.target.link, {}).get(key)
        moment = None if position is None else lease.moment(position)
        return EXPIRED if moment is None else moment + self.length_s
