"""What counts in a region by its registry, in true time, as the oracle has it.

Of a tenant that is the link by which it is served, and of an application its whole entry. A record
counts from when a Core that accepted it said so, which it does once its lease entry shows it.
Before that it is only *offered*: anybody may know it, and nobody has to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from tests.simulation.history import TenantFacts

FIRST: Final = 1
"""The revision that every tenant begins with."""

ALWAYS: Final = float("-inf")


@dataclass(slots=True)
class _Known:
    links: set[str]
    """By the records of the highest revision that was accepted: of a fork, several."""
    revision: int = FIRST
    since: float = ALWAYS
    offered: set[tuple[int, str]] = field(default_factory=set)


class Links:
    """The records of every tenant, or of every application, by region."""

    def __init__(self, first: Mapping[tuple[str, str], str]) -> None:
        """``first`` has what counts from the start, by name and region."""
        self._known: Final = {place: _Known({link}) for place, link in first.items()}
        self._ever: Final[dict[str, set[str]]] = {}
        for (name, _), known in self._known.items():
            self._ever.setdefault(name, set()).update(known.links)

    @classmethod
    def of_tenants(cls, tenants: Iterable[TenantFacts]) -> Self:
        """The link of each tenant in each of its regions."""
        return cls({(one.name, region): one.link for one in tenants for region in one.regions})

    def offered(self, tenant: str, region: str, revision: int, link: str) -> None:
        """A Core is about to accept a record."""
        self._ever[tenant].add(link)
        self._known[tenant, region].offered.add((revision, link))

    def accepted(self, tenant: str, region: str, revision: int, link: str, now: float) -> bool:
        """A Core has accepted it, and shows it; whether that is new."""
        known = self._known[tenant, region]
        known.offered = {one for one in known.offered if one[0] >= revision}
        known.offered.discard((revision, link))
        if revision < known.revision or (revision == known.revision and link in known.links):
            return False
        known.links = {link, *(known.links if revision == known.revision else ())}
        known.revision, known.since = revision, now
        return True

    def doubted(self, region: str, until: float) -> None:
        """Who showed what was accepted has to show it again, and has until then."""
        for (_, where), known in self._known.items():
            if where == region and known.since != ALWAYS:
                known.since = max(known.since, until)

    def of(self, tenant: str, region: str) -> frozenset[str]:
        """The links by which a tenant is held; none while that is in doubt."""
        known = self._known.get((tenant, region))
        if known is None or any(revision > known.revision for revision, _ in known.offered):
            return frozenset()
        return frozenset(known.links)

    def may_be(self, tenant: str, region: str) -> set[str]:
        """The links by which somebody may serve it who has heard of all that was accepted."""
        known = self._known[tenant, region]
        return known.links | {link for _, link in known.offered}

    def since(self, tenant: str, region: str) -> float:
        """Since when that is so."""
        return self._known[tenant, region].since

    def ever(self, tenant: str) -> set[str]:
        """Every link that a tenant ever was on, or may have been."""
        return self._ever[tenant]

    def came(self, link: str, since: float) -> bool:
        """Whether a tenant came to a link not longer ago."""
        return any(link in one.links and one.since >= since for one in self._known.values())

    def moved(self, tenant: str) -> bool:
        """Whether a tenant ever had another record than its first."""
        return any(
            known.since != ALWAYS or known.offered
            for (name, _), known in self._known.items()
            if name == tenant
        )

    def beyond(self, tenant: str, region: str, revision: int) -> bool:
        """Whether a record of this revision, or of a higher one, was accepted."""
        return self._known[tenant, region].revision >= revision

    def unsettled(self, tenant: str, region: str) -> bool:
        """Whether several records of one revision count, or some may that nobody has accepted."""
        known = self._known[tenant, region]
        return len(known.links) > 1 or bool(known.offered)

    def revision(self, tenant: str) -> int:
        """The highest revision that anybody may know."""
        return max(
            max((known.revision, *(revision for revision, _ in known.offered)))
            for (name, _), known in self._known.items()
            if name == tenant
        )
