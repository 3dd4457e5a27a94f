"""What operators signed: tenants, links and services, newest revision of each.

A lower revision is ignored: a store or a broker that brings back an old record changes nothing.
Names are kept in order, so a page of them is cut without looking at the others.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TypeVar

from kcm_schemas.registry import Link, Service, Tenant


class Registry:
    """A replica of verified records."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._links: dict[str, Link] = {}
        self._services: dict[str, dict[str, Service]] = {}
        self._on_link: dict[str, set[str]] = {}
        self._names: list[str] = []
        """Names of tenants, in order."""
        self._service_names: dict[str, list[str]] = {}
        """Names of a tenant's services, in order."""

    def put(self, record: Tenant | Link | Service) -> bool:
        """Take a verified record; ``False`` when the known one is as new."""
        match record:
            case Tenant():
                before = self._tenants.get(record.tenant)
                if not _newer(self._tenants, record.tenant, record):
                    return False
                if before is None:
                    insort(self._names, record.tenant)
                else:
                    self._on_link[before.link].discard(record.tenant)
                self._on_link.setdefault(record.link, set()).add(record.tenant)
                return True
            case Link():
                return _newer(self._links, record.link, record)
            case Service():
                services = self._services.setdefault(record.tenant, {})
                if record.service not in services:
                    insort(self._service_names.setdefault(record.tenant, []), record.service)
                return _newer(services, record.service, record)

    def tenant(self, name: str) -> Tenant | None:
        """A tenant."""
        return self._tenants.get(name)

    def link(self, name: str) -> Link | None:
        """A link."""
        return self._links.get(name)

    def service(self, tenant: str, name: str) -> Service | None:
        """A service of a tenant."""
        return self._services.get(tenant, {}).get(name)

    def names(self) -> list[str]:
        """Names of all tenants, in order: a copy, for whoever has to reach every one."""
        return self._names.copy()

    @property
    def tenant_count(self) -> int:
        """How many tenants there are."""
        return len(self._names)

    def tenants_after(self, name: str, limit: int) -> list[Tenant]:
        """At most ``limit`` tenants by name, from the first one behind ``name`` on (empty: all)."""
        return [self._tenants[one] for one in _after(self._names, name, limit)]

    def service_count(self, tenant: str) -> int:
        """How many services a tenant has."""
        return len(self._service_names.get(tenant, ()))

    def services_after(self, tenant: str, name: str, limit: int) -> list[Service]:
        """At most ``limit`` of a tenant's services, as ``tenants_after``."""
        names = self._service_names.get(tenant, [])
        return [self._services[tenant][one] for one in _after(names, name, limit)]

    def on_link(self, link: str) -> list[str]:
        """Names of the tenants whose roots a link opens; a purge asks, and looks at nobody else."""
        return sorted(self._on_link.get(link, ()))


def _after(names: list[str], name: str, limit: int) -> list[str]:
    at = bisect_right(names, name)
    return names[at : at + limit]


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
