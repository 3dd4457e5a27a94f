"""Naive registries: an older record, one of two, or another one than the Cores' is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.completeness import Arrival
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.incarnations import Key
from kcm_killswitch.model.registry import Put, Registry
from kcm_killswitch.model.registry_lease import PATIENCE_S, RegistryLease
from kcm_killswitch.model.registry_objects import RegistryObject, key_of
from kcm_killswitch.model.revocations import Registered, Revocations
from kcm_runtime.nats.ports import Entry
from kcm_schemas.codec import decode
from kcm_schemas.registry import RegistryEntry, Tenant
from kcm_trust.verify import Untrusted

from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.instance import Instance


class FirstCome(Registry):
    def put(self, obj: RegistryObject) -> Put:
        known = self.known(key_of(obj))
        if known is not None and known.revision == obj.revision:
            return Put.SAME
        return super().put(obj)


class LastCome(Registry):
    def put(self, obj: RegistryObject) -> Put:
        self._floors.pop(key_of(obj), None)
        if self.known(key_of(obj)) == obj:
            return Put.SAME
        self._versions.pop(key_of(obj), None)
        return super().put(obj)


class OneOfAFork(Registry):
    def _tenants(self, name: str) -> list[Tenant]:
        return super()._tenants(name)[:1]


class Unfloored(Registry):
    """Forgets what was read from the Core's disk."""

    def forget_floors(self) -> None:
        self._floors.clear()


class EndlessRegistry(RegistryLease):
    def until(self, now: float, shards: Iterable[int] | None = None) -> float:
        return FOREVER


class OnlyAtIncarnation(RegistryLease):
    """Its grace does not ask for how long the control lease has run."""

    def lapsed(self) -> None:
        """As if it had run on."""


class Patient(OnlyAtIncarnation):
    """Has a grace whenever something differs."""

    def heard(self, *told: Any) -> bool:
        for shard in self._shards:
            shard.agreed = True
        differs = super().heard(*told)
        for shard in self._shards:
            for shown in shard.shown.values():
                if shown.since == EXPIRED:
                    shown.since = shown.heard
        return differs


class Fading(RegistryLease):
    """Forgets what a Core showed once that one's lease has ended."""

    def until(self, now: float, shards: Iterable[int] | None = None) -> float:
        acting = (
            shown.since + PATIENCE_S
            for shard in self._shards
            for shown in shard.shown.values()
            if shown.since is not None and shown.acts(now)
        )
        return min(acting, default=FOREVER)


class Anybody(Arrival):
    """A receipt of whoever purged whomever."""

    def has_reached(self, tenants: bytes) -> bool:
        return True


class Unpurged(Revocations):
    """A tenant that moves is opened anew when its keys are gone."""

    def register(self, obj: RegistryObject) -> Registered:
        generations = dict(self._generations)
        done = super().register(obj)
        self._generations = generations
        return replace(done, purge=())


def first_come(instance: Instance) -> None:
    """Of two records of one revision the one counts that came first."""
    _as(instance.registry, FirstCome)


def last_come(instance: Instance) -> None:
    """The record counts that came last."""
    _as(instance.registry, LastCome)


def one_of_a_fork(instance: Instance) -> None:
    """Of two records of one revision one alone says by which link the tenant is held."""
    _as(instance.registry, OneOfAFork)


def no_floors(instance: Instance) -> None:
    """A Core that begins believes what the stores have."""
    _as(instance.registry, Unfloored)
    registry: Any = instance.registry
    registry.forget_floors()


def served_without_baseline(instance: Instance) -> None:
    """A Core without a baseline of its registry serves what the stores have."""
    instance.freshness.registry.remembered()


def endless_registry(instance: Instance) -> None:
    """Who differs from the Cores' registry serves on."""
    _as(instance.freshness.registry, EndlessRegistry)


def grace_at_start(instance: Instance) -> None:
    """Who begins while it differs has the same grace as who goes on.

    Where a control lease begins anew nobody has one. So here that is no beginning, either.
    """
    _as(instance.freshness.registry, Patient)


def grace_after_a_lapse(instance: Instance) -> None:
    """Who differs when its control lease begins anew has the same grace as who goes on."""
    _as(instance.freshness.registry, OnlyAtIncarnation)


def fading_difference(instance: Instance) -> None:
    """A difference ends with the lease of the Core that showed it."""
    _as(instance.freshness.registry, Fading)


def reached_ignored(instance: Instance) -> None:
    """A receipt counts whomever its incarnation knew to be reached."""
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    of = kills.receipts.of

    def anybody(hold_id: bytes) -> dict[Key, Arrival]:
        return {
            key: Anybody(one.receipt, one.after_ms, one.reached, one.raw)
            for key, one in of(hold_id).items()
        }

    kills.receipts.of = anybody


def accepted_unshown(instance: Instance) -> None:
    """A record is accepted before the Core's own record shows it."""
    core: Any = instance
    core.shown = _at_once


def refused_believed(instance: Instance) -> None:
    """What an operator signed is believed, whether a Core accepted it or not."""
    feed: Any = instance.feed
    if feed is not None:
        verify = feed.verify

        def statement(entry: Entry) -> RegistryObject:
            try:
                obj: RegistryObject = verify(entry)
            except Untrusted:
                said = decode(RegistryEntry, entry.data)
                return instance.me.verifier.tenant(said.statement)
            return obj

        feed.verify = statement


def no_repair(instance: Instance) -> None:
    """Nobody puts back what a bucket has lost."""
    keeper: Any = core_part(instance, "keeper")
    if keeper is not None:
        keeper.repairs.repair = _nothing


def one_store(instance: Instance) -> None:
    """A Core that begins asks the bucket alone."""
    keeper: Any = core_part(instance, "keeper")
    if keeper is not None:
        keeper.repairs.restore = _nothing


def moved_unpurged(instance: Instance) -> None:
    """A tenant that moves to another link is not purged."""
    _as(instance.revocations, Unpurged)


async def _at_once() -> None:
    """Nothing is waited for."""


async def _nothing(*_: Any) -> bool:
    return False


def _as(part: Any, naive: type[Any]) -> None:
    part.__class__ = naive
