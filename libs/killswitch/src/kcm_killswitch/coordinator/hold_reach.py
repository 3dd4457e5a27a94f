"""Whom a hold concerns: the regions that have to know it, and the tenants that it reaches."""

from __future__ import annotations

from typing import Final

from kcm_runtime.host import Host
from kcm_schemas.control import Scope
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.admission import quorum_of
from kcm_killswitch.model.completeness import QuorumNeed, Reach
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.killswitch import KillSwitch


class HoldReach:
    """Answers from the registry and the roster, as far as this Core knows them."""

    def __init__(self, host: Host, replica_state: ReplicaState, *, switch: KillSwitch) -> None:
        self._me: Final = host.me
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._switch: Final = switch

    def regions(self, scope: Scope, target: str) -> list[str]:
        """The regions that have to know a hold: those of the tenant that it names, or all regions.

        A link may open roots of tenants in other regions, whose registry entries this region never
        sees. While another Core of this region knows different registry entries, the tenant may be
        in any region, too. A retired region is not waited for.
        """
        everywhere = self._me.verifier.regions
        settled = scope == "tenant" and self._switch.knows_registry
        named = self._registry.regions_of(target) if settled else []
        wanted = set(named or everywhere) & set(everywhere)
        return sorted(region for region in wanted or everywhere if self._counts(region))

    def tenants(self, scope: Scope, target: str) -> Reach:
        """The tenants that a hold reaches. Tenants on a link may be known in other regions only."""
        if scope == "region":
            return Reach()
        known = [self._registry.tenant(name) for name in self._revocations.held(scope, target)]
        tenants = []
        for tenant in known:
            if tenant is not None:
                link = self._registry.link(tenant.link)
                regions = frozenset(region for region in tenant.regions if self._counts(region))
                model = link.model if link else "byok"
                retired = len(set(tenant.regions) - regions)
                tenants.append(QuorumNeed(regions, quorum_of(tenant, link), model, retired))
        settled = scope == "tenant" and self._switch.knows_registry
        return Reach(tenants, closed=settled and bool(tenants))

    def retired(self, instance: str) -> bool:
        """Whether an instance is retired by the roster."""
        try:
            return self._me.verifier.instance(instance).retired is not None
        except Untrusted:
            return False

    def _counts(self, region: str) -> bool:
        return region == self._me.region or not self._revocations.retired(region)
