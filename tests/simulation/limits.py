"""Until when something may be served or accepted: the bounds that every lease keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kcm_core.providers.state import L1State

from tests.simulation.history import Bounds, HoldFacts, TenantFacts
from tests.simulation.l1 import Answer
from tests.simulation.links import Links
from tests.simulation.loop import SimLoop
from tests.simulation.reach import Reach


class Limits:
    """The bounds of holds, of records and of customers' keys, by true time."""

    def __init__(
        self,
        loop: SimLoop,
        bounds: Bounds,
        reach: Reach,
        uris: Mapping[str, str],
        roster_at: Mapping[str, float],
        note: Callable[[str], None],
    ) -> None:
        """``roster_at`` says when each region's stream had the highest roster."""
        self._loop: Final = loop
        self.bounds: Final = bounds
        self._reach: Final = reach
        self.links: Final = reach.links
        self._uris: Final = uris
        self._roster_at: Final = roster_at
        self.note: Final = note
        self._refused_in: set[tuple[str, str]] = set()
        """Key and region of every refusal that may cause a hold."""
        self._opened: set[tuple[str, str, bytes]] = set()
        self._used: dict[tuple[str, str], float] = {}
        """When a key last allowed a use, by key and region."""

    def refused(self, link: str, region: str) -> bool:
        """Whether the key of a link has refused in a region, so that it may cause a hold."""
        return (self._uris.get(link, ""), region) in self._refused_in

    def limit(self, hold: HoldFacts, tenant: TenantFacts, region: str) -> float:
        """When nothing of a tenant is accepted in a region any more for a hold."""
        limit, stretched = float("inf"), self.bounds.stretched
        if region in hold.durable:
            limit = hold.durable[region] + self.lease_s
        known = sorted(
            at
            for where, at in hold.durable.items()
            if where in tenant.regions and where != region  # the own one is heard by its stream
        )
        needed = {"all": 1, "majority": len(tenant.regions) // 2 + 1}.get(tenant.policy)
        if needed is not None and len(known) >= needed:
            limit = min(limit, known[needed - 1] + stretched(self.bounds.grace_s(tenant)))
        if hold.void:  # whether it is lifted is a matter of the region's own roster
            limit = max(limit, self._roster_at.get(region, float("inf")) + self.lease_s)
        if hold.scope != "link":
            return limit
        concerned = [one for one in self._reach.concerned(hold, region) if region in one.regions]
        for_their_sake = min((self.record_limit(one, region) for one in concerned), default=limit)
        return max(limit, self.record_limit(tenant, region), for_their_sake)

    def record_limit(self, tenant: TenantFacts, region: str) -> float:
        """When nobody serves a tenant by another record than those that count any more."""
        return self.entry_limit(self.links, tenant.name, region)

    def entry_limit(self, entries: Links, name: str, region: str) -> float:
        """The same for a tenant or an application."""
        lease_s = self.bounds.control_lease_s + self.bounds.patience_s
        return entries.since(name, region) + self.bounds.stretched(lease_s)

    def in_flight(self, complete_at: float, sent_at: float) -> bool:
        """Whether an answer that comes now was asked for before that, and is excused."""
        late = self._loop.now - complete_at > self.bounds.stretched(self.bounds.answer_s)
        return self.bounds.excuse_in_flight and sent_at < complete_at and not late

    @property
    def lease_s(self) -> float:
        """The longest true time that a control lease lasts."""
        return self.bounds.stretched(self.bounds.control_lease_s)

    def key_limit(self, tenant: TenantFacts, region: str) -> float:
        """When the lease of the last use that a tenant's key allowed in a region has ended."""
        heard = self._loop.now > self.record_limit(tenant, region)
        links = self.links.may_be(tenant.name, region) if heard else self.links.ever(tenant.name)
        uris = {self._uris[link] for link in links}
        used = max(self._used.get((uri, region), float("-inf")) for uri in uris)
        return used + self.bounds.stretched(self.bounds.l1_s(tenant))

    def key_answered(self, answer: Answer) -> None:
        """A customer's key answers an instance."""
        who = (answer.uri, answer.instance, answer.incarnation)
        if answer.state is L1State.ENABLED:
            self._opened.add(who)
            self._used[answer.uri, answer.region] = self._loop.now
        elif answer.state.refused:
            self.note(f"{answer.uri} answers {answer.instance} {answer.state.value}")
            if not answer.wrong or who in self._opened:
                self._refused_in.add((answer.uri, answer.region))
