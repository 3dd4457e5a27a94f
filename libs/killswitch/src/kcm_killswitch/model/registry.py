"""The registry: the tenants, links, services and applications that operators signed, as a join.

Of two entries of one name, the one with the higher (revision, digest) counts. So all replicas that
were given the same entries are equal, whatever the order: a store or a broker that returns an old
entry changes nothing here. ``digest`` is over all entries. Two replicas compare it to notice that
one of them was given fewer.

Two different entries of one revision are a **fork**: both are kept until a higher revision arrives.
Until then a tenant is served under the stricter of both, and an application is not served.

Names are kept in order, so a page of them is cut without visiting the others.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from hashlib import sha256
from typing import Final

from kcm_schemas.app import App
from kcm_schemas.registry import Link, Service, Tenant

from kcm_killswitch.model.link_tenants import LinkTenants
from kcm_killswitch.model.registry_objects import (
    Key,
    RegistryObject,
    key_of,
    object_digest,
    shard_of,
)
from kcm_killswitch.model.shard_digests import ShardDigests
from kcm_killswitch.model.tenant_forks import stricter

FORKS_MAX: Final = 4
"""Maximum number of entries of one revision that are kept: those with the highest digests."""


class Put(Enum):
    """The effect of an entry on the registry."""

    NEW = "new"
    """It is the one that counts now."""
    FORK = "fork"
    """It is a different entry of the revision that counts: an incident."""
    SAME = "same"
    """It was known."""
    OLDER = "older"
    """A higher entry is known: a store or a broker returned an old one."""


@dataclass(frozen=True)
class _Version:
    obj: RegistryObject

    @cached_property
    def digest(self) -> bytes:
        return object_digest(self.obj)

    @property
    def rank(self) -> tuple[int, bytes]:
        return self.obj.revision, self.digest


class Registry:
    """A replica of verified entries."""

    def __init__(self) -> None:
        self._floors: dict[Key, tuple[int, bytes]] = {}
        self._versions: dict[Key, tuple[_Version, ...]] = {}
        """Entries of the highest revision by key, the one that counts first."""
        self._served: dict[str, Tenant] = {}
        self._services: dict[str, dict[str, Service]] = {}
        self._names: list[str] = []
        """Names of tenants, in order."""
        self._link_names: list[str] = []
        """Names of links, in order."""
        self._service_names: dict[str, list[str]] = {}
        """Names of a tenant's services, in order."""
        self._app_names: list[str] = []
        """Names of applications, in order."""
        self._plain_apps: set[str] = set()
        self._links: Final = LinkTenants()
        self._shards: Final = ShardDigests()

    def put(self, obj: RegistryObject) -> Put:
        """Take a verified entry, in any order and any number of times."""
        key, new = key_of(obj), _Version(obj)
        if isinstance(obj, Tenant):
            self._links.verified(obj)
        if new.rank < self._floors.get(key, (0, b"")):
            return Put.OLDER
        known = self._versions.get(key, ())
        if known and new.obj.revision < known[0].obj.revision:
            return Put.OLDER
        same = known if known and known[0].obj.revision == obj.revision else ()
        if any(new.digest == one.digest for one in same):
            return Put.SAME
        kept = sorted((*same, new), key=lambda one: one.rank, reverse=True)[:FORKS_MAX]
        self._keep(key, tuple(kept))
        return Put.FORK if same else Put.NEW

    def floor(self, key: Key, revision: int, digest: bytes) -> None:
        """Accept no lower entry of this key: a higher one was known once."""
        self._floors[key] = max((revision, digest), self._floors.get(key, (0, b"")))

    @property
    def below_floor(self) -> list[Key]:
        """Keys with a known floor, for which no entry as high is known now."""
        return [key for key, (revision, _) in self._floors.items() if self.revision(key) < revision]

    def drop(self, obj: RegistryObject) -> bool:
        """Forget an entry that is not accepted any more; ``False`` if the entry is not known."""
        key = key_of(obj)
        known = self._versions.get(key, ())
        kept = tuple(one for one in known if one.obj != obj)
        if len(kept) == len(known):
            return False
        if kept:
            self._keep(key, kept)
        else:
            self._remove(key)
        return True

    def may_concern(self, link: str, region: str) -> bool:
        """Whether a tenant on this link may be served in this region.

        ``False`` only when every revision of a tenant that was ever verified here has the link in
        other regions only.
        """
        return self._links.may_concern(link, region)

    def tenant(self, name: str) -> Tenant | None:
        """A tenant as it is served: of a fork, the stricter of both in every respect."""
        return self._served.get(name)

    def link(self, name: str) -> Link | None:
        """A link."""
        found = self._current(("link", name))
        return found if isinstance(found, Link) else None

    def service(self, tenant: str, name: str) -> Service | None:
        """A service of a tenant."""
        return self._services.get(tenant, {}).get(name)

    def names(self) -> list[str]:
        """The names of all tenants, in order: a copy, for callers that visit every tenant."""
        return self._names.copy()

    @property
    def tenant_count(self) -> int:
        """The number of tenants."""
        return len(self._names)

    def tenants_after(self, name: str, limit: int) -> list[Tenant]:
        """At most ``limit`` tenants with names after ``name`` (empty: from the first), by name."""
        return [self._served[one] for one in _after(self._names, name, limit)]

    @property
    def link_count(self) -> int:
        """The number of links."""
        return len(self._link_names)

    def links_after(self, name: str, limit: int) -> list[Link]:
        """At most ``limit`` links, as ``tenants_after``."""
        found = (self.link(one) for one in _after(self._link_names, name, limit))
        return [one for one in found if one is not None]

    def service_count(self, tenant: str) -> int:
        """The number of services of a tenant."""
        return len(self._service_names.get(tenant, ()))

    def services_after(self, tenant: str, name: str, limit: int) -> list[Service]:
        """At most ``limit`` of a tenant's services, as ``tenants_after``."""
        names = self._service_names.get(tenant, [])
        return [self._services[tenant][one] for one in _after(names, name, limit)]

    def app(self, name: str) -> App | None:
        """An application as it is served; ``None`` for a fork, too."""
        found = self._versions.get(("app", name), ())
        return found[0].obj if len(found) == 1 and isinstance(found[0].obj, App) else None

    @property
    def plain_apps(self) -> frozenset[str]:
        """Names of applications that need no key."""
        return frozenset(self._plain_apps)

    @property
    def app_count(self) -> int:
        """The number of applications."""
        return len(self._app_names)

    def apps_after(self, name: str, limit: int) -> list[App]:
        """At most ``limit`` applications, as ``tenants_after``; of a fork, the one that counts."""
        found = (self._current(("app", one)) for one in _after(self._app_names, name, limit))
        return [one for one in found if isinstance(one, App)]

    def forked(self, key: Key) -> bool:
        """Whether several entries have the highest revision of this key."""
        return len(self._versions.get(key, ())) > 1

    def objects(self) -> Iterable[RegistryObject]:
        """Every entry that counts, and those of forks."""
        return (one.obj for versions in self._versions.values() for one in versions)

    def ranks(self) -> list[tuple[Key, tuple[int, bytes]]]:
        """The highest rank of every key, without encoding the entries again."""
        return [(key, versions[0].rank) for key, versions in self._versions.items()]

    def rank(self, key: Key) -> tuple[int, bytes] | None:
        """The rank that counts under a key."""
        found = self._versions.get(key)
        return found[0].rank if found else None

    @property
    def highest_revision(self) -> int:
        """The highest revision of any entry; 0 when there is none."""
        return max((one[0].obj.revision for one in self._versions.values()), default=0)

    @property
    def total_services(self) -> int:
        """The number of services of all tenants."""
        return sum(map(len, self._service_names.values()))

    def known(self, key: Key) -> RegistryObject | None:
        """The entry that counts under a key."""
        return self._current(key)

    def revision(self, key: Key) -> int:
        """The revision that counts; 0 when there is none."""
        found = self._versions.get(key)
        return found[0].obj.revision if found else 0

    def highest(self, key: Key) -> int:
        """The highest revision that was ever known here; 0 when there was none."""
        return max(self.revision(key), self._floors.get(key, (0, b""))[0])

    def links_of(self, tenant: str) -> list[str]:
        """The links of a tenant: its own one; in a fork, those of every entry."""
        return sorted({one.link for one in self._tenants(tenant)})

    def regions_of(self, tenant: str) -> list[str]:
        """The regions in which a tenant may be served by any of its entries that count."""
        return sorted({region for one in self._tenants(tenant) for region in one.regions})

    def on_link(self, link: str) -> list[str]:
        """Names of the tenants whose roots a link opens."""
        return self._links.now(link)

    def ever_on_link(self, link: str) -> list[str]:
        """The same by any entry that was ever known. A purge asks, and visits no other tenants."""
        return self._links.ever(link)

    def reached(self, tenants: Iterable[str]) -> bytes:
        """A digest of 32 bytes over known tenants; with other entries, other keys were reached."""
        total = sha256()
        for name in sorted(tenants):
            for one in self._versions.get(("tenant", name), ()):
                total.update(one.digest)
        return total.digest()

    @property
    def digests(self) -> list[bytes]:
        """A digest of 16 bytes for each shard: equal in two replicas that know the same."""
        return self._shards.all

    @property
    def digest(self) -> bytes:
        """A digest of 32 bytes over the whole registry."""
        return sha256(b"".join(self.digests)).digest()

    def shards_of(self, tenant: str) -> list[int]:
        """The shards with a tenant, its services, and its links."""
        return sorted({shard_of(tenant), *map(shard_of, self.links_of(tenant))})

    def _tenants(self, name: str) -> list[Tenant]:
        versions = self._versions.get(("tenant", name), ())
        return [one.obj for one in versions if isinstance(one.obj, Tenant)]

    def _current(self, key: Key) -> RegistryObject | None:
        found = self._versions.get(key)
        return found[0].obj if found else None

    def _remove(self, key: Key) -> None:
        if key[0] == "tenant":
            self._links.remove(key[1], self.links_of(key[1]))
            del self._served[key[1]]
            self._names.remove(key[1])
        elif key[0] == "link":
            self._link_names.remove(key[1])
        elif key[0] == "app":
            self._app_names.remove(key[1])
            self._plain_apps.discard(key[1])
        elif key[0] == "service":
            del self._services[key[1]][key[2]]
            self._service_names[key[1]].remove(key[2])
        del self._versions[key]
        self._shards.remove(shard_of(key[1]), key)

    def _keep(self, key: Key, versions: tuple[_Version, ...]) -> None:
        if key[0] == "tenant":
            self._links.remove(key[1], self.links_of(key[1]))
        elif key[0] == "link" and key not in self._versions:
            insort(self._link_names, key[1])
        elif key[0] == "app" and key not in self._versions:
            insort(self._app_names, key[1])
        self._versions[key] = versions
        self._shards.put(shard_of(key[1]), key, b"".join(one.digest for one in versions))
        if key[0] == "tenant":
            if key[1] not in self._served:
                insort(self._names, key[1])
            self._served[key[1]] = stricter(self._tenants(key[1]))
            self._links.add(key[1], self.links_of(key[1]))
        elif isinstance(app := versions[0].obj, App):
            (self._plain_apps.add if app.plain else self._plain_apps.discard)(app.app)
        elif isinstance(service := versions[0].obj, Service):
            services = self._services.setdefault(key[1], {})
            if key[2] not in services:
                insort(self._service_names.setdefault(key[1], []), key[2])
            services[key[2]] = service


def _after(names: list[str], name: str, limit: int) -> list[str]:
    at = bisect_right(names, name)
    return names[at : at + limit]
