"""The effect of holds here: which tenants are killed or must be purged, and their generations.

A tenant is killed while any hold on it, on its link or on this region is not lifted. Its
**generation** is a local counter, raised at every purge: an operation that began in another
generation has no output. The caller synchronously purges the tenants that ``learn`` names, before
it does anything else with the message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from kcm_schemas.app import App
from kcm_schemas.codes import KcmError
from kcm_schemas.control import KEY_SCOPES
from kcm_schemas.names import key_target
from kcm_schemas.registry import Link, Tenant

from kcm_killswitch.model.hold_refusals import overtaken, refusal_for
from kcm_killswitch.model.hold_set import HoldSet, HoldState
from kcm_killswitch.model.registry import Put, Registry
from kcm_killswitch.model.registry_objects import Key, RegistryObject

REFUSALS_MAX: Final = 64
"""Number of refusal times kept for a link: six in a row make the longest settling time, and each
Core of the region may have placed a hold for each."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The effect of a hold or lift: tenants to purge now, and whether to store and forward it."""

    changed: bool
    purge: tuple[str, ...]
    ignored: bool = False
    """Whether it is a hold of another region's key on a link that no tenant of that region has."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The effect of a registry entry, and the tenants to purge for it, now."""

    put: Put
    purge: tuple[str, ...]


class Revocations:
    """Holds, applied to the known tenants."""

    def __init__(self, registry: Registry, region: str, own_key: str = "") -> None:
        """``own_key`` names this instance and its key, as a hold does (``key_target``)."""
        self._registry = registry
        self._region = region
        self._own_places = (("region", region), ("instance", own_key))
        self._listeners: list[Callable[[str, str], None]] = []
        self._generations: dict[str, int] = {}
        self._active: dict[tuple[str, str], dict[bytes, HoldState]] = {}
        self._refused: dict[tuple[str, str], set[int]] = {}
        self._ignored: dict[str, dict[bytes, HoldState]] = {}
        """By link, holds that a region's root key caused although the region has no tenant there.

        They are known, and count as soon as a tenant's entry says that the region has one, or may
        have.
        """
        self._reached_by: dict[tuple[str, str], bytes] = {}
        """Digests by scope and target, until the registry changes.

        They make a repeated hold cheap: if it reaches thousands of tenants, their entries are not
        digested each time.
        """
        self.holds = HoldSet()

    def learn(self, state: HoldState) -> Learned:
        """Take a verified hold or lift. Purges name every tenant that the hold reaches."""
        holds = self.holds.add(state)
        now = holds.get(state.hold.id)
        if holds is self.holds or now is None:
            return Learned(changed=False, purge=())
        self.holds = holds
        self._index(now)
        if now.hold.cause == "l1":
            times = self._refused.setdefault((now.hold.origin, now.hold.target), set())
            times.add(now.hold.issued_ms)
            if len(times) > REFUSALS_MAX:
                times.remove(min(times))
        if not now.lifted and not self.counts(now):
            return Learned(changed=True, purge=(), ignored=True)
        return Learned(changed=True, purge=self._reached(now))

    def judge(self, hold_id: bytes, state: HoldState | None) -> tuple[str, ...]:
        """A new roster evaluates a hold differently, or rejects it: the tenants to purge now."""
        before = self.holds.get(hold_id)
        if before is None or before == state:
            return ()
        self.holds = self.holds.judged(hold_id, state)
        self._forget(before)
        if state is None:
            return ()
        self._index(state)
        return self._reached(state) if before.lifted and self.counts(state) else ()

    def turned(self, prefix: int, group: str, paged: bytes) -> list[HoldState]:
        """From now on, pages end exactly these holds of one first byte; see ``HoldSet``.

        Returns the known states of these holds, which are not kept any more.
        """
        self.holds, gone = self.holds.turned(prefix, group, paged)
        for state in gone:
            self._forget(state)
        return gone

    def counts(self, state: HoldState) -> bool:
        """Whether a hold counts here, if it is not lifted.

        A root key holds only links on which its own region has a tenant. While that is in doubt,
        the hold counts.
        """
        hold = state.hold
        return hold.cause != "l1" or self._registry.may_concern(hold.target, hold.origin)

    def serves_here(self, link: str) -> bool:
        """Whether this region has a tenant on a link."""
        found = (self._registry.tenant(name) for name in self._registry.on_link(link))
        return any(one is not None and self._region in one.regions for one in found)

    def everybody(self) -> tuple[str, ...]:
        """All tenants, in a new generation: no operation that began before has an output."""
        names = tuple(self._registry.names())
        for name in names:
            self._raise(name)
        return names

    def unregister(self, obj: RegistryObject) -> tuple[str, ...]:
        """Drop a registry entry that is not accepted any more; the tenants to purge for it."""
        if not self._registry.drop(obj):
            return ()
        self._reached_by.clear()
        if isinstance(obj, App):
            return ()
        reached = self._registry.ever_on_link(obj.link) if isinstance(obj, Link) else [obj.tenant]
        for tenant in reached:
            self._raise(tenant)
        return tuple(reached)

    def register(self, obj: RegistryObject) -> Registered:
        """Take a verified registry entry; names the tenants that have to be purged for it.

        A tenant whose entry changed (another link, other regions) is opened again, or not at all.
        """
        before = self._registry.tenant(obj.tenant) if isinstance(obj, Tenant) else None
        put = self._registry.put(obj)
        self._reached_by.clear()
        reached: tuple[str, ...] = ()
        if put in (Put.NEW, Put.FORK):
            if isinstance(obj, Tenant) and before is not None:
                reached = (obj.tenant,)
            elif isinstance(obj, Link):
                reached = tuple(self._registry.ever_on_link(obj.link))
        for tenant in reached:
            self._raise(tenant)
        concerned = self._concern(obj.link) if isinstance(obj, Tenant) else ()
        return Registered(put, tuple(dict.fromkeys(concerned + reached)))

    def registered(self, key: Key) -> RegistryObject | None:
        """The registry entry that counts under a key."""
        return self._registry.known(key)

    @property
    def registry_digests(self) -> list[bytes]:
        """The digests of the registry's shards."""
        return self._registry.digests

    @property
    def registry_digest(self) -> bytes:
        """A digest of 32 bytes: equal in two incarnations whose registries are the same."""
        return self._registry.digest

    def reach(self, scope: str, target: str) -> tuple[str, ...]:
        """The tenants that are purged for a hold of this scope and target in this region.

        For a link, these include tenants that were ever on it: keys that it opened may still be
        here.
        """
        match scope:
            case "tenant":
                return (target,)
            case "link":
                return tuple(self._registry.ever_on_link(target))
            case _:
                return tuple(self._registry.names() if (scope, target) in self._own_places else ())

    def reached(self, state: HoldState) -> bytes:
        """A digest of 32 bytes of the tenants that a hold reaches, and whether the hold counts.

        An instance that knows other entries of these tenants has reached other keys. For a region,
        the digest is over the whole registry.
        """
        hold = state.hold
        if not self.counts(state):
            return sha256(b"ignored").digest()
        if hold.scope in ("region", "instance"):
            return self.registry_digest
        at = (hold.scope, hold.target)
        if at not in self._reached_by:
            self._reached_by[at] = self._registry.reached(self.reach(*at))
        return self._reached_by[at]

    def held(self, scope: str, target: str) -> tuple[str, ...]:
        """The tenants that a hold of this scope and target keeps out of service in this region."""
        if scope == "link":
            return tuple(self._registry.on_link(target))
        return self.reach(scope, target)

    def killed(self, tenant: str) -> bool:
        """Whether any hold keeps the tenant out of service; called several times per request."""
        return bool(self._active) and any(one in self._active for one in self._places(tenant))

    def key_held(self, scope: str, name: str, public_key: bytes) -> bool:
        """Whether a hold keeps this key of an application or an instance out of service."""
        return bool(self._active) and (scope, key_target(name, public_key)) in self._active

    def listen(self, held: Callable[[str, str], None]) -> None:
        """Call ``held`` with scope and target when a hold on a key comes into force."""
        self._listeners.append(held)

    def retired(self, region: str) -> bool:
        """Whether a region was taken out of service: no Core waits for its reports."""
        return ("region", region) in self._active

    def refused_ms(self, origin: str, link: str) -> frozenset[int]:
        """When the last holds that a link's root key caused in a region were issued (Unix ms)."""
        return frozenset(self._refused.get((origin, link), ()))

    @property
    def held_links(self) -> list[str]:
        """Links with a hold that is not lifted."""
        return [target for scope, target in self._active if scope == "link"]

    def active(self, tenant: str) -> list[HoldState]:
        """The holds that keep a tenant out of service."""
        return [state for place in self._places(tenant) for state in self.active_on(*place)]

    def active_on(self, scope: str, target: str) -> list[HoldState]:
        """The holds of this scope and target that are not lifted."""
        return list(self._active.get((scope, target), {}).values())

    def in_force(self, after: bytes = b"") -> list[HoldState]:
        """All holds that are not lifted and whose ids are above ``after``, by id."""
        found = {
            hold_id: state
            for held in self._active.values()
            for hold_id, state in held.items()
            if hold_id > after
        }
        return [found[hold_id] for hold_id in sorted(found)]

    def generation(self, tenant: str) -> int:
        """The tenant's generation in this incarnation."""
        return self._generations.get(tenant, 0)

    def begin(self, tenant: str) -> int:
        """Start an operation: its generation; raises ``tenant_killed``."""
        self.raise_if_killed(tenant)
        return self.generation(tenant)

    def raise_if_killed(self, tenant: str) -> None:
        """Raise ``tenant_killed`` if a hold keeps the tenant out of service."""
        if self.killed(tenant):
            raise self.refusal(tenant)

    def still(self, tenant: str, generation: int) -> None:
        """Before any output: raises ``tenant_killed`` unless the generation is the same."""
        if self.generation(tenant) != generation or self.killed(tenant):
            raise self.refusal(tenant)

    def refusal(self, tenant: str) -> KcmError:
        """The error for a tenant without output; ``tenant_killed`` states the cause for any caller.

        It states the kind of hold, never its issuer or its reason; of several holds, it states one.
        If none is in force (it was lifted meanwhile, or the tenant moved to another link), the
        error is ``tenant_unavailable``: a caller that asks again is served.
        """
        for place in self._places(tenant):
            for state in self._active.get(place, {}).values():
                return refusal_for(state.hold)
        return overtaken()

    def _places(self, tenant: str) -> list[tuple[str, str]]:
        """The scopes and targets whose holds keep a tenant out of service."""
        links = [("link", link) for link in self._registry.links_of(tenant)]
        return [("tenant", tenant), *self._own_places, *links]

    def again(self, hold_id: bytes) -> tuple[str, ...]:
        """The tenants to purge once more for a hold in force: it may reach others now."""
        state = self.holds.get(hold_id)
        return self._reached(state) if state is not None and self.counts(state) else ()

    def _reached(self, state: HoldState) -> tuple[str, ...]:
        """The tenants to purge for a hold that is in force from now on."""
        purge = () if state.lifted else self.reach(state.hold.scope, state.hold.target)
        for tenant in purge:
            self._raise(tenant)
        return purge

    def _index(self, state: HoldState) -> None:
        """Index a hold by scope and target unless it is lifted, as most holds ever placed are."""
        self._forget(state)
        hold = state.hold
        if state.lifted:
            return
        if self.counts(state):
            self._active.setdefault((hold.scope, hold.target), {})[hold.id] = state
            if hold.scope in KEY_SCOPES:
                for held in self._listeners:
                    held(hold.scope, hold.target)
        else:
            self._ignored.setdefault(hold.target, {})[hold.id] = state

    def _forget(self, state: HoldState) -> None:
        hold = state.hold
        active = self._active.get((hold.scope, hold.target), {})
        if active.pop(hold.id, None) is not None and not active:
            del self._active[hold.scope, hold.target]
        ignored = self._ignored.get(hold.target, {})
        if ignored.pop(hold.id, None) is not None and not ignored:
            del self._ignored[hold.target]

    def _concern(self, link: str) -> tuple[str, ...]:
        """Apply the holds on a link that a tenant's entry makes count; the tenants to purge.

        The entry may also end the doubt in which a hold counted; such a hold does not count any
        more.
        """
        count = self._active.get(("link", link), {})
        ignored = self._ignored.get(link, {})
        if not count and not ignored:
            return ()
        purge: tuple[str, ...] = ()
        for state in [*count.values(), *ignored.values()]:
            was_ignored = state.hold.id in ignored
            if self.counts(state) == was_ignored:
                self._index(state)
                purge += self._reached(state) if was_ignored else ()
        return purge

    def _raise(self, tenant: str) -> None:
        self._generations[tenant] = self.generation(tenant) + 1
