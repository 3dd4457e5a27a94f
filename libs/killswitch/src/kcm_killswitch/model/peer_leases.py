"""Peer leases: up to which moment this region knows the other regions of a tenant.

A Core notes its latest log position ``a``, asks region ``o`` for all its holds, stores what is
missing here, and then states a peer lease on ``o`` at ``a``: when our stream was at ``a``, we knew
everything that was durable in ``o``. A reader takes its own latest write before ``a`` as the moment
up to which it knows ``o``, and may serve for a grace from then.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcm_schemas.registry import RegionQuorum

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER, ControlLease


class PeerLeases:
    """The latest accepted peer lease of every other region."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def learn(self, other: str, position: int) -> None:
        """Take an accepted peer lease; an older one changes nothing."""
        self._positions[other] = max(position, self._positions.get(other, 0))

    def resumed(self, behind: int) -> None:
        """Reduce positions above ``behind`` to it, because the entries there may differ now.

        What was known at a higher position was also known at ``behind``.
        """
        self._positions = {other: min(a, behind) for other, a in self._positions.items()}

    def forget(self) -> None:
        """Drop all positions: after a rollback they mean nothing."""
        self._positions.clear()

    def moment(self, other: str, lease: ControlLease) -> float:
        """Up to when a region is known, on this incarnation's clock, or ``EXPIRED``."""
        position = self._positions.get(other)
        moment = None if position is None else lease.moment(position)
        return EXPIRED if moment is None else moment

    def until(
        self, policy: RegionQuorum, others: Sequence[str], lease: ControlLease, grace_s: float
    ) -> float:
        """When the peer leases of a tenant with these other regions end.

        ``all``: every other region has to be known. ``majority`` of n regions: a kill counts once
        it is durable in most of them. So n - floor(n / 2) regions, including this one, have to be
        known for the two sets to intersect. ``local``: no bound across regions.
        """
        if policy == "local" or not others:
            return FOREVER
        known = [self.moment(other, lease) for other in others]
        if policy == "all":
            return min(known) + grace_s
        known.sort(reverse=True)
        needed = needed_others(len(others) + 1)
        return FOREVER if needed == 0 else known[needed - 1] + grace_s


def needed_others(regions: int) -> int:
    """Number of other regions that have to be known under ``majority`` of ``regions``."""
    return regions - regions // 2 - 1


def durable_majority(regions: int) -> int:
    """Number of regions in which a kill has to be durable to count under ``majority``."""
    return regions // 2 + 1
