"""Which tenants' roots each link opens, now and by any entry that was ever verified here."""

from __future__ import annotations

from collections.abc import Iterable

from kcm_schemas.registry import Tenant


class LinkTenants:
    """The tenants of each link, so that a purge visits no others."""

    def __init__(self) -> None:
        self._now: dict[str, set[str]] = {}
        self._ever: dict[str, set[str]] = {}
        self._regions: dict[str, set[str]] = {}
        """By link, the regions of every tenant revision on it that was ever verified here."""

    def verified(self, tenant: Tenant) -> None:
        """An entry was verified, also one that does not count: its reader may hold keys by it."""
        self._ever.setdefault(tenant.link, set()).add(tenant.tenant)
        self._regions.setdefault(tenant.link, set()).update(tenant.regions)

    def add(self, tenant: str, links: Iterable[str]) -> None:
        """A tenant is on these links now."""
        for link in links:
            self._now.setdefault(link, set()).add(tenant)

    def remove(self, tenant: str, links: Iterable[str]) -> None:
        """A tenant is not on these links any more."""
        for link in links:
            self._now[link].discard(tenant)

    def now(self, link: str) -> list[str]:
        """Names of the tenants whose roots a link opens."""
        return sorted(self._now.get(link, ()))

    def ever(self, link: str) -> list[str]:
        """The same by any entry that was ever known."""
        return sorted(self._ever.get(link, ()))

    def may_concern(self, link: str, region: str) -> bool:
        """Whether a tenant on this link may be served in this region.

        ``False`` only when every revision of a tenant that was ever verified here has the link in
        other regions only.
        """
        regions = self._regions.get(link)
        return regions is None or region in regions
