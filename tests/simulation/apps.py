"""Applications, as the oracle has them: which key may act where, for what, and until when.

A hold takes one key of an application, or of an instance, out of service. An entry of the registry
says what an application may do, and with which key. Both have the bounds that holds and records of
tenants have (``tests/simulation/limits.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm_killswitch.model.registry_objects import object_digest
from kcm_schemas.app import App, AppGrant, Verb
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import KEY_SCOPES
from kcm_schemas.names import key_target
from kcm_trust.identity import Identity

from tests.simulation.history import HoldFacts, TenantFacts
from tests.simulation.links import FIRST, Links
from tests.simulation.loop import SimLoop
from tests.simulation.plan import APPS
from tests.simulation.trust import SYSTEM
from tests.simulation.vault import SERVICE

if TYPE_CHECKING:
    from tests.simulation.instance import Instance
    from tests.simulation.oracle import Oracle

VERBS: Final[tuple[Verb, ...]] = ("decrypt", "encrypt")

ENDS_MS: Final = 4_000_000_000_000
"""When entries end, in Unix milliseconds: after every run."""

SLACK_S: Final = 1e-6
"""Of comparisons between times that were computed in different ways."""


@lru_cache(maxsize=64)
def app_identity(app: str, number: int) -> Identity:
    """An application with one of its keys. These are real: sessions begin with a signature."""
    seed = blake2b(f"{app}/{number}".encode(), digest_size=32, person=b"kcm-sim-app").digest()
    return Identity(app, Ed25519PrivateKey.from_private_bytes(seed), SYSTEM)


@dataclass(frozen=True, slots=True)
class Caller:
    """An application that asks, with one of its keys."""

    app: str
    public: bytes

    @property
    def target(self) -> str:
        """What a hold on this key is on."""
        return key_target(self.app, self.public)


def app_entry(
    app: str,
    tenants: Iterable[TenantFacts],
    regions: Sequence[str],
    *,
    revision: int = FIRST,
    number: int = 0,
    lacks: tuple[str, str] = ("", ""),
) -> App:
    """An entry with every grant but one for the tenant and verb that it ``lacks``."""
    grants = [
        AppGrant(
            tenant=one.name,
            service=SERVICE,
            verbs=[verb for verb in VERBS if (one.name, verb) != lacks],
        )
        for one in sorted(tenants, key=lambda one: one.name)
    ]
    return App(
        app=app,
        revision=revision,
        previous=bytes(32),
        public_key=app_identity(app, number).public,
        grants=grants,
        regions=sorted(regions),
        not_before_ms=0,
        not_after_ms=ENDS_MS,
        plain=False,
        revoked=False,
    )


class Apps:
    """Judges what applications are given, by true time."""

    def __init__(
        self,
        loop: SimLoop,
        oracle: Oracle,
        tenants: Sequence[TenantFacts],
        regions: Sequence[str],
    ) -> None:
        self._loop: Final = loop
        self._oracle: Final = oracle
        self._tenants: Final = tenants
        self._regions: Final = regions
        self._made: Final[dict[str, App]] = {}
        """Every entry that was ever signed, by its digest."""
        self.numbers: Final = dict.fromkeys(APPS, 0)
        """The number of the key with which each application asks."""
        self.first: Final = [app_entry(app, tenants, regions) for app in APPS]
        self.entries: Final = Links(
            {(app.app, region): self.made(app) for app in self.first for region in regions}
        )

    # What people do.

    def made(self, app: App) -> str:
        """An entry exists: the name by which ``entries`` knows it."""
        name = object_digest(app).hex()
        self._made[name] = app
        return name

    def next(self, app: str, *, rotate: bool = False, lacks: tuple[str, str] = ("", "")) -> App:
        """The next entry of an application; by its revision it may follow every other one."""
        number = self.numbers[app] + rotate
        revision = self.entries.revision(app) + 2
        return app_entry(
            app, self._tenants, self._regions, revision=revision, number=number, lacks=lacks
        )

    def caller(self, app: str) -> Caller:
        """An application, with the key with which it asks now."""
        return Caller(app, app_identity(app, self.numbers[app]).public)

    def unsettled(self, app: str) -> bool:
        """Whether an entry counts somewhere that is not a full one, or that is in doubt."""
        return any(
            not self._full(app, region) or self.entries.unsettled(app, region)
            for region in self._regions
        )

    # What clients see.

    def accepted(
        self, caller: Caller, tenant: TenantFacts, region: str, verb: str, sent_at: float
    ) -> None:
        """An application accepts an answer of a region: invariants 1, 2 and 8."""
        if not self._touched:
            return
        said = f"{verb} of {tenant.name} by {caller.app} in {region}, asked at {sent_at:.4f}"
        for hold in self._on(caller.target):
            done, name = hold.complete_at, hold.hold_id.hex()[:8]
            known = done is not None and self._now > self._again(hold, region)
            if known and not self._oracle.limits.in_flight(done or 0.0, sent_at):
                self.broken(1, f"{said}, accepted; hold {name} complete {done:.4f}")
            self._within(self._limit(hold, tenant, region), f"{said}, accepted", hold)
        self._granted(caller, tenant.name, region, verb, f"{said}, accepted")

    def refused(self, caller: Caller, tenant: str, region: str, code: Code, verb: str) -> bool:
        """Whether a refusal is about the application, and may be: else invariant 7 is broken.

        Who has no lease refuses by what it knew: ``would`` judges who has one.
        """
        if code is not Code.FORBIDDEN:
            return False
        entries = (one for one in self._made.values() if one.app == caller.app)
        self._oracle.coverage.saw("an application that is refused")
        return (
            region in self._oracle.damaged  # who starts there may know no application
            or any(one.target == caller.target for one in self._oracle.holds.values())
            or any(not _covers(one, caller, verb, tenant) for one in entries)
        )

    # What instances do, or would do.

    def opened(self, caller: Caller, gateway: str, tenant: str, region: str, said: str) -> None:
        """A Core opens a key for an application and a Gateway's key: invariants 1, 2 and 8."""
        for target in (caller.target, gateway):
            for hold in self._on(target):
                done = hold.complete_at
                if done is not None and self._now > self._again(hold, region):
                    name = hold.hold_id.hex()[:8]
                    self.broken(1, f"{said}; hold {name} on {target} complete {done:.4f}")
                self._within(self._limit(hold, self._of(tenant), region), said, hold)
        self._granted(caller, tenant, region, "decrypt", f"{said} and {caller.app}")

    def would(self, one: Instance, tenant: TenantFacts) -> None:
        """An instance would serve a tenant, were it asked at this moment: invariants 2 and 8."""
        if not self._touched:
            return
        name, region = one.who.name, one.who.region
        for hold in self._on(one.me.key_target):
            limit = self._oracle.limits.limit(hold, tenant, region)
            if not one.has_keys(tenant.name):
                limit = max(limit, self._again(hold, region))
            self._within(limit, f"{name} serves {tenant.name}", hold)
        for app in APPS:
            for verb in VERBS:
                try:
                    public = one.allows(app, tenant.name, verb)
                except KcmError:
                    continue
                if public is None:
                    self._may_refuse(one, app, tenant.name, verb)
                    continue
                caller, said = Caller(app, public), f"{name} lets {app} {verb} for {tenant.name}"
                for hold in self._on(caller.target):
                    self._within(self._limit(hold, tenant, region), said, hold)
                self._granted(caller, tenant.name, region, verb, said)

    def _may_refuse(self, one: Instance, app: str, tenant: str, verb: str) -> None:
        """What counts refuses the application, or is so new that not everybody has to know it."""
        caller, region = self.caller(app), one.who.region
        counts = [self._made[name] for name in self.entries.of(app, region)]
        known = self._now > self._oracle.limits.entry_limit(self.entries, app, region) + SLACK_S
        held = any(hold.target == caller.target for hold in self._oracle.holds.values())
        granted = counts and all(_covers(entry, caller, verb, tenant) for entry in counts)
        if known and granted and not held and region not in self._oracle.damaged:
            self.broken(7, f"{one.who.name} does not let {app} {verb} for {tenant}")

    def serving(self, hold: HoldFacts, running: Iterable[tuple[str, Instance]]) -> Iterator[str]:
        """Who would give something to the key that a hold is on, or with it."""
        if hold.scope not in KEY_SCOPES or not hold.active(self._now):
            return
        app = hold.target.partition(".")[0]
        for name, one in running:
            for tenant in self._tenants:
                if one.who.region not in tenant.regions or not one.serves(tenant.name):
                    continue
                if hold.scope == "instance" and one.me.key_target == hold.target:
                    yield f"{name} serves {tenant.name}"
                if app in APPS and any(
                    self._would(one, app, tenant.name, verb) == hold.target for verb in VERBS
                ):
                    yield f"{name} serves {app} for {tenant.name}"

    def _would(self, one: Instance, app: str, tenant: str, verb: str) -> str:
        try:
            public = one.allows(app, tenant, verb)
        except KcmError:
            return ""
        return key_target(app, public) if public else ""

    # How it is judged.

    def _of(self, tenant: str) -> TenantFacts:
        return self._oracle.tenants[tenant]

    @property
    def _now(self) -> float:
        return self._loop.now

    @property
    def _touched(self) -> bool:
        """Whether anything can be wrong: a key was held, or an entry was changed."""
        return len(self._made) > len(APPS) or any(
            one.scope in KEY_SCOPES for one in self._oracle.holds.values()
        )

    def _on(self, target: str) -> list[HoldFacts]:
        return [
            one
            for one in self._oracle.holds.values()
            if one.target == target and one.scope in KEY_SCOPES and one.active(self._now)
        ]

    def _limit(self, hold: HoldFacts, tenant: TenantFacts, region: str) -> float:
        """As for a tenant's hold. Who starts lacks one that the stream lost, until it is back."""
        return max(self._oracle.limits.limit(hold, tenant, region), self._again(hold, region))

    def _again(self, hold: HoldFacts, region: str) -> float:
        if region not in hold.again:
            return float("-inf")
        return hold.again[region] + self._oracle.limits.lease_s

    def _within(self, limit: float, said: str, hold: HoldFacts) -> None:
        if self._now > limit + SLACK_S:
            self.broken(2, f"{said}; the bound of hold {hold.hold_id.hex()[:8]} was {limit:.4f}")

    def _granted(self, caller: Caller, tenant: str, region: str, verb: str, said: str) -> None:
        """What counts covers it, or is so new that not everybody has to know it."""
        limit = self._oracle.limits.entry_limit(self.entries, caller.app, region)
        counts = [self._made[one] for one in self.entries.of(caller.app, region)]
        if self._now > limit + SLACK_S and not all(
            _covers(one, caller, verb, tenant) for one in counts
        ):
            self.broken(8, f"{said}, which no entry grants since {limit:.4f}")

    def _full(self, app: str, region: str) -> bool:
        counts = [self._made[one] for one in self.entries.of(app, region)]
        return bool(counts) and all(
            _covers(one, self.caller(app), verb, tenant.name)
            for one in counts
            for verb in VERBS
            for tenant in self._tenants
        )

    def broken(self, invariant: int, text: str) -> None:
        """An invariant is broken."""
        self._oracle.never_healed(invariant, text)


def _covers(entry: App, caller: Caller, verb: str, tenant: str) -> bool:
    return entry.public_key == caller.public and entry.covers(verb, tenant, SERVICE)
