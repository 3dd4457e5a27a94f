"""Whom a hold kills: a tenant, or whoever is on a link by what counts in a region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.simulation.history import HoldFacts, TenantFacts
from tests.simulation.links import Links
from tests.simulation.loop import SimLoop


class Reach:
    """Answers from the tenants and the records that Cores accepted."""

    def __init__(
        self, loop: SimLoop, tenants: Mapping[str, TenantFacts], links: Links, *, apart: bool
    ) -> None:
        """``apart``: a region's registry has its own tenants alone."""
        self._loop: Final = loop
        self.tenants: Final = tenants
        self.links: Final = links
        self._apart: Final = apart

    def kills(self, hold: HoldFacts, tenant: TenantFacts, region: str, at: float) -> bool:
        """Whether a hold that is not lifted kills a tenant in a region, and would have at ``at``.

        Who came to the link later than that is killed, too, but nobody could have said so then.
        """
        reached = self.reaches(hold, tenant, region) and hold.active(self._loop.now)
        return reached and (hold.scope != "link" or self.links.since(tenant.name, region) <= at)

    def reaches(self, hold: HoldFacts, tenant: TenantFacts, region: str) -> bool:
        """Whether a hold is on a tenant, or on its link by what counts in a region."""
        if hold.scope == "link":
            return hold.target in self.links.of(tenant.name, region) and bool(
                self.concerned(hold, region)
            )
        return hold.target == tenant.name

    def concerned(self, hold: HoldFacts, region: str) -> list[TenantFacts]:
        """Tenants for whose sake a hold on a link counts in a region.

        A key that refuses in one region holds what that region serves by it, too.
        """
        known = [t for t in self.tenants.values() if not self._apart or region in t.regions]
        return [
            one
            for one in known
            if hold.cause != "l1"
            or (
                hold.origin in one.regions
                and hold.target
                in self.links.of(one.name, region if region in one.regions else one.regions[0])
            )
        ]

    def may_reach(self, hold: HoldFacts, tenant: TenantFacts) -> bool:
        """Whether it ever may have been, anywhere."""
        if hold.scope == "link":
            return hold.target in self.links.ever(tenant.name)
        return hold.target == tenant.name
