"""What operators signed: tenants, links and services, newest revision of each.

A lower revision is ignored: a store or a broker that brings back an old record changes nothing.
"""

from __future__ import annotations

from typing import TypeVar

from kcm_schemas.registry import Link, Service, Tenant


class Registry:
    """A replica of verified records."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._links: dict[str, Link] = {}
        self._services: dict[tuple[str, str], Service] = {}
        self._on_link: dict[str, set[str]] = {}
        self._regions_of: dict[str, set[str]] = {}
        """By link, the regions of every tenant revision on it that was ever verified here."""

    def put(self, record: Tenant | Link | Service) -> bool:
        """Take a verified record; ``False`` when the known one is as new."""
        match record:
            case Tenant():
                self._regions_of.setdefault(record.link, set()).update(record.regions)
                before = self._tenants.get(record.tenant)
                if not _newer(self._tenants, record.tenant, record):
                    return False
                if before is not None:
                    self._on_link[before.link].discard(record.tenant)
                self._on_link.setdefault(record.link, set()).add(record.tenant)
                return True
            case Link():
                return _newer(self._links, record.link, record)
            case Service():
                return _newer(self._services, (record.tenant, record.service), record)

    def drop(self, record: Tenant | Link | Service) -> bool:
        """Forget a record that is not believed any more; ``False`` when another one is known."""
        match record:
            case Tenant():
                if self._tenants.get(record.tenant) != record:
                    return False
                del self._tenants[record.tenant]
                self._on_link[record.link].discard(record.tenant)
            case Link():
                if self._links.get(record.link) != record:
                    return False
                del self._links[record.link]
            case Service():
                key = (record.tenant, record.service)
                if self._services.get(key) != record:
                    return False
                del self._services[key]
        return True

    def may_concern(self, link: str, region: str) -> bool:
        """Whether a tenant on this link may be served in this region.

        ``False`` only when every revision of a tenant that was ever verified here has the link in
        other regions alone.
        """
        regions = self._regions_of.get(link)
        return regions is None or region in regions

    def tenant(self, name: str) -> Tenant | None:
        """A tenant."""
        return self._tenants.get(name)

    def link(self, name: str) -> Link | None:
        """A link."""
        return self._links.get(name)

    def service(self, tenant: str, name: str) -> Service | None:
        """A service of a tenant."""
        return self._services.get((tenant, name))

    def tenants(self) -> list[Tenant]:
        """All tenants, by name."""
        return [self._tenants[name] for name in sorted(self._tenants)]

    def services(self, tenant: str) -> list[Service]:
        """A tenant's services, by name."""
        return [self._services[key] for key in sorted(self._services) if key[0] == tenant]

    def on_link(self, link: str) -> list[str]:
        """Names of the tenants whose roots a link opens; a purge asks, and looks at nobody else."""
        return sorted(self._on_link.get(link, ()))


def replaces(known: Tenant | Link | Service, new: Tenant | Link | Service) -> bool:
    """Whether ``new`` may take the place of ``known``.

    Its revision has to be higher, and a link's URI has to stay: stored keys are wrapped by what is
    there. A tenant may name another link: whoever stores that has wrapped its roots again.
    """
    match known, new:
        case (Tenant(), Tenant()):
            same = known.tenant == new.tenant
        case (Link(), Link()):
            same = (known.link, known.uri) == (new.link, new.uri)
        case (Service(), Service()):
            same = (known.tenant, known.service) == (new.tenant, new.service)
        case _:
            return False
    return same and new.revision > known.revision


K = TypeVar("K")
R = TypeVar("R", Tenant, Link, Service)


def _newer(known: dict[K, R], key: K, record: R) -> bool:
    current = known.get(key)
    if current is not None and current.revision >= record.revision:
        return False
    known[key] = record
    return True
