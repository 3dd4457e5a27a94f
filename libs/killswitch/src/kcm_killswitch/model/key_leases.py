"""Attestations: somebody in the region used the customer's key, and it was allowed.

An attestation names what was used: the link and its revision, the version of the key, and in whose
name. It serves only whoever uses the very same. It carries the prober's mark from *before* the key
was asked, so whoever reads it takes its own latest write before that mark as the moment from which
the lease runs. Instances share attestations, so a key is asked once an interval, and not once for
every replica and every tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, ControlLease


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What is asked: a version of a customer's key, through a revision of its link."""

    link: str
    link_revision: int
    key_version: str


@dataclass(frozen=True, slots=True, order=True)
class AttestedKey:
    """What an attestation is about: a target, and in whose name it was used."""

    target: Target
    principal: str


class Attestations:
    """The latest believed attestation of every key."""

    def __init__(self, length_s: float) -> None:
        self.length_s: Final = length_s
        self._positions: dict[str, dict[AttestedKey, int]] = {}
        """By link: a refusal looks at no other one's."""
        self.shortened = 0
        """Raised whenever the lease of any key may have become shorter."""

    def learn(self, key: AttestedKey, position: int) -> None:
        """Take a believed attestation; an older one changes nothing."""
        known = self._positions.setdefault(key.target.link, {})
        known[key] = max(position, known.get(key, 0))

    def refuse(self, link: str) -> None:
        """Whatever was proven of a link counts no more."""
        self.shortened += 1
        self._positions.pop(link, None)

    def resumed(self, behind: int) -> None:
        """Places above ``behind`` may be another thing now; a use after them was one after it."""
        self.shortened += 1
        for known in self._positions.values():
            known.update((key, min(a, behind)) for key, a in known.items())

    def forget(self) -> None:
        """After a rollback positions mean nothing."""
        self.shortened += 1
        self._positions.clear()

    def until(self, key: AttestedKey, lease: ControlLease) -> float:
        """When the lease of a key ends, or ``EXPIRED``."""
        position = self._positions.get(key.target.link, {}).get(key)
        moment = None if position is None else lease.moment(position)
        return EXPIRED if moment is None else moment + self.length_s
