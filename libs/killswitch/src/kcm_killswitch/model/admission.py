"""Admission: whether this incarnation may serve a tenant, and until when.

All of these conditions have to hold:

- The tenant is registered for this region and not killed, in the generation in which the operation
  began.
- The control lease is live.
- The peer leases of the tenant's other regions are live, as its region quorum requires.
- If the tenant's root is open, the key lease is live: a recent use of the root key succeeded.

The smallest remainder of these leases goes with every answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, RegionQuorum, Tenant

from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.key_leases import AttestedKey
from kcm_killswitch.model.open_keys import OpenKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_lease import NO_BASELINE
from kcm_killswitch.model.revocations import Revocations


@dataclass(frozen=True, slots=True)
class Permit:
    """An operation that was admitted. ``until`` is in seconds of this incarnation's clock."""

    tenant: str
    generation: int
    until: float


def quorum_of(tenant: Tenant, link: Link | None) -> RegionQuorum:
    """The region quorum of a tenant: ``all`` for HYOK links, else as the tenant states."""
    return "all" if link is not None and link.model == "hyok" else tenant.region_quorum


UNREGISTERED: Final = (
    "not in the region's registry; if its broker lost data, sign the tenant again as it was"
)
"""What an operator does about a tenant that was there; the registry is the bucket kcm-registry."""

NOBODY_SAYS: Final = (
    "no Core of the region says what its registry is: none runs, or none has a baseline of it; "
    "`kcm registry show` says which"
)
"""The refusal of a Gateway that does not know a tenant while no Core states the registry."""


class Admission:
    """Admits operations, and checks them once more before they have an output."""

    def __init__(
        self,
        freshness: Freshness,
        revocations: Revocations,
        registry: Registry,
        region: str,
        *,
        told: bool = False,
    ) -> None:
        """``told``: this incarnation knows the registry only from statements of its region's Cores.

        A Gateway sets it.
        """
        self._told: Final = told
        self._freshness: Final = freshness
        self._revocations: Final = revocations
        self._registry: Final = registry
        self._region: Final = region
        self._keys: dict[str, set[AttestedKey]] = {}
        self._opened: Final = OpenKeys()

    def admit(self, tenant: str, now: float) -> Permit:
        """Admit an operation.

        Raises ``unknown_tenant``, ``tenant_killed``, or ``unavailable`` while this instance cannot
        know of every kill. ``recheck`` checks the key lease.
        """
        if not self.remembers:  # also for an unknown tenant: the stores may lack it
            raise KcmError(Code.UNAVAILABLE, NO_BASELINE)
        if self._told and self._registry.tenant(tenant) is None:
            self._untold(now)
        registered = self.known(tenant)
        generation = self._revocations.begin(tenant)
        return Permit(tenant, generation, self._known_until(registered, now))

    def recheck(self, permit: Permit, now: float) -> float:
        """Check once more before an output. Returns the seconds for which it may be accepted.

        Raises ``tenant_killed`` when the generation has changed, ``tenant_unavailable`` when the
        root key was not used for too long, and the errors of ``admit``.
        """
        self._revocations.still(permit.tenant, permit.generation)
        registered = self.known(permit.tenant)
        until = min(self._known_until(registered, now), self._l1(permit.tenant))
        if now >= until:
            raise KcmError(Code.TENANT_UNAVAILABLE)
        return until - now

    def known(self, tenant: str) -> Tenant:
        """The tenant's entry; raises ``unknown_tenant`` unless it is served in this region.

        A hold on a link reaches the tenants that are known to be on it. So an unknown tenant is not
        served: an instance without the tenant's registry entry would not notice its kill.
        """
        registered = self._registry.tenant(tenant)
        if registered is None or self._region not in registered.regions:
            raise KcmError(Code.UNKNOWN_TENANT, f"the tenant {tenant} is {UNREGISTERED}")
        return registered

    def _untold(self, now: float) -> None:
        """Raise ``unavailable`` while no Core states its registry: the tenant may be in it."""
        if not self._freshness.registry.told(now):
            raise KcmError(Code.UNAVAILABLE, NOBODY_SAYS)

    @property
    def remembers(self) -> bool:
        """Whether this instance may serve at all, and use root keys in the region's name."""
        return self._freshness.registry.remembers

    def killed(self, tenant: str) -> bool:
        """Whether any hold keeps the tenant out of service."""
        return self._revocations.killed(tenant)

    def refusal(self, tenant: str) -> KcmError:
        """The error for a tenant that was purged a moment ago; the condition may pass."""
        return self._revocations.refusal(tenant)

    def open(self, tenant: str, key: AttestedKey) -> None:
        """The tenant's root was opened with this key: the lease of the key counts from now on."""
        self._keys.setdefault(tenant, set()).add(key)
        self._opened.add(key, tenant)

    def renamed(self, key: AttestedKey) -> None:
        """Move what is open by the target of ``key`` under ``key``, which has a new principal."""
        for old in self._opened.named(key.target):
            if old != key:
                for tenant in self._opened.tenants(old):
                    self._keys[tenant].discard(old)
                    self._opened.discard(old, tenant)
                    self.open(tenant, key)

    def close(self, tenant: str) -> None:
        """The tenant's root is not open any more."""
        for key in self._keys.pop(tenant, ()):
            self._opened.discard(key, tenant)

    def used(self, tenant: str) -> None:
        """What is open of a tenant was used just now."""
        for key in self._keys.get(tenant, ()):
            self._opened.used(key)

    @property
    def opened(self) -> OpenKeys:
        """The root keys by which anything is open."""
        return self._opened

    def is_open(self, tenant: str) -> bool:
        """Whether anything of a tenant is open."""
        return tenant in self._keys

    def lapsed(self, now: float) -> list[str]:
        """Open tenants whose root key was not used for too long: their keys have to be unloaded.

        This runs several times a second, while a kill may be waiting. It looks at the keys that are
        due, and at all of them only if leases may have become shorter.
        """
        ended = self._opened.ended(now, self._until, self._freshness.attestations.shortened)
        return list(dict.fromkeys(tenant for key in ended for tenant in self._opened.tenants(key)))

    def live(self, tenant: str, now: float) -> bool:
        """Whether the lease of an open tenant's root key is live."""
        return tenant in self._keys and now < self._l1(tenant)

    def quorum_set(self, registered: Tenant) -> list[str]:
        """The other regions of a tenant that are not retired."""
        return [
            region
            for region in registered.regions
            if region != self._region and not self._revocations.retired(region)
        ]

    def _known_until(self, registered: Tenant, now: float) -> float:
        """Until when this instance knows of every kill of a tenant; raises ``unavailable``."""
        until = min(
            self._freshness.lease.until(),
            self._registry_until(registered, now),
            self._heard_until(registered),
        )
        if now >= until:
            raise KcmError(Code.UNAVAILABLE, self._lapsed(registered, now))
        return until

    def _l1(self, tenant: str) -> float:
        """When the first lease of a tenant's root keys ends; ``FOREVER`` if nothing is open."""
        return min(map(self._until, self._keys.get(tenant, ())), default=FOREVER)

    def _until(self, key: AttestedKey) -> float:
        """When the lease of a key ends: earlier for a HYOK link."""
        timing, link = self._freshness.timing, self._registry.link(key.target.link)
        shorter = timing.l1_lease_s - timing.l1_lease_of(link.model if link else "byok")
        return self._freshness.attestations.until(key, self._freshness.lease) - shorter

    def _heard_until(self, registered: Tenant) -> float:
        others = self.quorum_set(registered)
        if not others:
            return FOREVER
        link = self._registry.link(registered.link)
        # A link that is not known here may be one with the shorter grace.
        grace = self._freshness.timing.grace_s(link.model if link else "hyok")
        policy = quorum_of(registered, link)
        return self._freshness.peer_leases.until(policy, others, self._freshness.lease, grace)

    def _registry_until(self, registered: Tenant, now: float) -> float:
        """Until when the registry entries of a tenant, its services and its links are believed."""
        if self._freshness.registry.until(now) == FOREVER:
            return FOREVER
        return self._freshness.registry.until(now, self._registry.shards_of(registered.tenant))

    def _lapsed(self, registered: Tenant, now: float) -> str:
        if now >= self._freshness.lease.until():
            return "this instance cannot know of every kill at the moment"
        if now >= self._registry_until(registered, now):
            return "this instance knows other tenants and links than a Core of its region"
        return (
            "another region of the tenant has not been heard for too long, or judges by a newer "
            "roster than this one: `kcm roster show`"
        )
