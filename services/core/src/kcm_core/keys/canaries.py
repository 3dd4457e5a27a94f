"""Finds a canary for each root key: that of any tenant whose root the key wrapped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.registry import Registry
from kcm_schemas.codes import KcmError
from kcm_schemas.registry import WrappedRoot

from kcm_core.keys.store import KeyStore

READS_MAX: Final = 8
"""Tenants of a link whose roots one search reads if none was read yet: the key monitor waits for
it, and a store that does not answer delays each read."""


@dataclass(frozen=True, slots=True)
class Canary:
    """The key's URI, and the tenant's wrapped root that has the canary."""

    uri: str
    tenant: str
    root: WrappedRoot


class Canaries:
    """Wrapped roots of tenants, by the key that wrapped them."""

    def __init__(self, registry: Registry, store: KeyStore) -> None:
        self.registry: Final = registry
        self._store: Final = store
        self._known: dict[Target, tuple[str, WrappedRoot]] = {}
        self._links: dict[str, set[Target]] = {}
        self._tried: dict[str, int] = {}
        """The number of a link's tenants that were read without a result."""

    def add(self, tenant: str, root: WrappedRoot) -> Target:
        """Add a root that was read; returns the key that wrapped it."""
        target = Target(root.link, root.link_revision, root.key_version)
        self._known[target] = (tenant, root)
        self._links.setdefault(root.link, set()).add(target)
        return target

    def find(self, target: Target) -> Canary | None:
        """A canary that the key wrapped, if it is known and the link is still registered."""
        known, link = self._known.get(target), self.registry.link(target.link)
        return None if known is None or link is None else Canary(link.uri, *known)

    async def of_links(self, links: Iterable[str]) -> set[Target]:
        """The root keys of some links, read from the store if no root was read yet."""
        found: set[Target] = set()
        for link in links:
            if link not in self._links:
                await self._read(link)
            found |= self._links.get(link, set())
        return found

    async def _read(self, link: str) -> None:
        """Read roots until one has a wrapping of the link; the next call continues after them."""
        tenants = self.registry.on_link(link)
        at = self._tried.pop(link, 0)
        for tenant in tenants[at : at + READS_MAX]:
            try:
                roots = await self._store.root(tenant)
            except KcmError:
                continue  # this entry may be damaged, and the next one good
            if roots is None:
                continue
            for root in roots.versions:
                if root.version == roots.current and root.link == link:
                    self.add(tenant, root)
                    return
        if at + READS_MAX < len(tenants):
            self._tried[link] = at + READS_MAX
