"""What a hold means here: who is killed, what must be purged, and which generation we are in.

A tenant is killed while any hold on it, on its link or on this region is not lifted. Its
**generation** is a local counter, raised at every purge: an operation that began in another
generation has no output. The caller purges, synchronously, whatever ``learn`` names, before it does
anything else with the message.
"""

from __future__ import annotations

from dataclasses import dataclass

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Service, Tenant

from kcm_control.holds import HoldRecord, HoldSet
from kcm_control.registry import Registry


@dataclass(frozen=True, slots=True)
class Learned:
    """What a record changed: tenants to purge now, and whether it has to be stored and told on."""

    changed: bool
    purge: tuple[str, ...]
    ignored: bool = False
    """Whether it is a hold of another region's key, on a link that is none of that region's."""


class Revocations:
    """Holds, applied to the tenants that are known."""

    def __init__(self, registry: Registry, region: str) -> None:
        self._registry = registry
        self._region = region
        self._generations: dict[str, int] = {}
        self._active: dict[tuple[str, str], dict[bytes, HoldRecord]] = {}
        self._ignored: dict[str, dict[bytes, HoldRecord]] = {}
        """By link, holds that a region's key caused which has no tenant there; they are known, and
        count as soon as a tenant's record says that it has, or may have."""
        self.holds = HoldSet()

    def learn(self, record: HoldRecord) -> Learned:
        """Take a verified hold or lift. Purges name every tenant that the hold reaches."""
        holds = self.holds.add(record)
        now = holds.get(record.hold.id)
        if holds is self.holds or now is None:
            return Learned(changed=False, purge=())
        self.holds = holds
        self._index(now)
        if not now.lifted and not self.counts(now):
            return Learned(changed=True, purge=(), ignored=True)
        return Learned(changed=True, purge=self._reached(now))

    def judge(self, hold_id: bytes, record: HoldRecord | None) -> tuple[str, ...]:
        """A hold is believed otherwise by a new roster, or not at all: whom to purge for it now."""
        before = self.holds.get(hold_id)
        if before is None or before == record:
            return ()
        self.holds = self.holds.judged(hold_id, record)
        self._forget(before)
        if record is None:
            return ()
        self._index(record)
        return self._reached(record) if before.lifted and self.counts(record) else ()

    def counts(self, record: HoldRecord) -> bool:
        """Whether a hold counts here, if it is not lifted.

        A customer's key holds links on which its own region has a tenant. While that is in doubt,
        it counts.
        """
        hold = record.hold
        return hold.cause != "l1" or self._registry.may_concern(hold.target, hold.origin)

    def serves_here(self, link: str) -> bool:
        """Whether this region has a tenant on a link."""
        found = (self._registry.tenant(name) for name in self._registry.on_link(link))
        return any(one is not None and self._region in one.regions for one in found)

    def everybody(self) -> tuple[str, ...]:
        """All tenants, in a new generation: nothing that began has an output any more."""
        names = tuple(one.tenant for one in self._registry.tenants())
        for name in names:
            self._raise(name)
        return names

    def unregister(self, record: Tenant | Link | Service) -> tuple[str, ...]:
        """A registry record is not believed any more; names the tenants to be purged for it."""
        if not self._registry.drop(record):
            return ()
        match record:
            case Link():
                reached = tuple(self._registry.on_link(record.link))
            case _:
                reached = (record.tenant,)
        for tenant in reached:
            self._raise(tenant)
        return reached

    def register(self, record: Tenant | Link | Service) -> tuple[str, ...]:
        """Take a verified registry record; names the tenants that have to be purged for it.

        A tenant whose record changed (another link, other regions) is opened anew, or not at all.
        """
        before = self._registry.tenant(record.tenant) if isinstance(record, Tenant) else None
        taken = self._registry.put(record)
        concerned = self._concern(record.link) if isinstance(record, Tenant) else ()
        return tuple(dict.fromkeys(concerned + self._registered(record, before, taken=taken)))

    def _registered(
        self, record: Tenant | Link | Service, before: Tenant | None, *, taken: bool
    ) -> tuple[str, ...]:
        if not taken:
            return ()
        if isinstance(record, Tenant) and before is not None:
            self._raise(record.tenant)
            return (record.tenant,)
        if isinstance(record, Link):
            reached = tuple(self._registry.on_link(record.link))
            for tenant in reached:
                self._raise(tenant)
            return reached
        return ()

    def reach(self, scope: str, target: str) -> tuple[str, ...]:
        """The tenants that a hold of this scope and target kills in this region."""
        match scope:
            case "tenant":
                return (target,)
            case "link":
                return tuple(self._registry.on_link(target))
            case _:
                here = target == self._region
                return tuple(one.tenant for one in self._registry.tenants()) if here else ()

    def killed(self, tenant: str) -> bool:
        """Whether any hold keeps the tenant dark. Asked several times in every request."""
        if ("tenant", tenant) in self._active or ("region", self._region) in self._active:
            return True
        known = self._registry.tenant(tenant)
        return known is not None and ("link", known.link) in self._active

    def retired(self, region: str) -> bool:
        """Whether a region was taken out of service: nobody waits for its word."""
        return ("region", region) in self._active

    @property
    def held_links(self) -> list[str]:
        """Links with a hold that is not lifted."""
        return [target for scope, target in self._active if scope == "link"]

    def active(self, tenant: str) -> list[HoldRecord]:
        """The holds that keep a tenant dark."""
        known = self._registry.tenant(tenant)
        found = [("tenant", tenant), ("region", self._region)]
        if known is not None:
            found.append(("link", known.link))
        return [record for target in found for record in self.active_on(*target)]

    def active_on(self, scope: str, target: str) -> list[HoldRecord]:
        """The holds of this scope and target that are not lifted."""
        return list(self._active.get((scope, target), {}).values())

    def generation(self, tenant: str) -> int:
        """The tenant's generation in this boot."""
        return self._generations.get(tenant, 0)

    def begin(self, tenant: str) -> int:
        """Start an operation: its generation; raises ``tenant_killed``."""
        if self.killed(tenant):
            raise KcmError(Code.TENANT_KILLED)
        return self.generation(tenant)

    def still(self, tenant: str, generation: int) -> None:
        """Before any output: raises ``tenant_killed`` unless the generation is the same."""
        if self.generation(tenant) != generation or self.killed(tenant):
            raise KcmError(Code.TENANT_KILLED)

    def _reached(self, record: HoldRecord) -> tuple[str, ...]:
        """Whom to purge for a hold that is in force from now on."""
        purge = () if record.lifted else self.reach(record.hold.scope, record.hold.target)
        for tenant in purge:
            self._raise(tenant)
        return purge

    def _index(self, record: HoldRecord) -> None:
        """Keep what is not lifted by its scope and target: most holds ever placed are lifted."""
        self._forget(record)
        hold = record.hold
        if record.lifted:
            return
        if self.counts(record):
            self._active.setdefault((hold.scope, hold.target), {})[hold.id] = record
        else:
            self._ignored.setdefault(hold.target, {})[hold.id] = record

    def _forget(self, record: HoldRecord) -> None:
        hold = record.hold
        active = self._active.get((hold.scope, hold.target), {})
        if active.pop(hold.id, None) is not None and not active:
            del self._active[hold.scope, hold.target]
        ignored = self._ignored.get(hold.target, {})
        if ignored.pop(hold.id, None) is not None and not ignored:
            del self._ignored[hold.target]

    def _concern(self, link: str) -> tuple[str, ...]:
        """A tenant's record may say whose keys count on a link; whom to purge for it."""
        count = self._active.get(("link", link), {})
        ignored = self._ignored.get(link, {})
        if not count and not ignored:
            return ()
        purge: tuple[str, ...] = ()
        for record in [*count.values(), *ignored.values()]:
            was_ignored = record.hold.id in ignored
            if self.counts(record) == was_ignored:
                self._index(record)
                purge += self._reached(record) if was_ignored else ()
        return purge

    def _raise(self, tenant: str) -> None:
        self._generations[tenant] = self.generation(tenant) + 1
