"""Naive holds: other merges, other orders of purging, and other reasons to lift."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_killswitch.model.flap_damping import FlapDamping
from kcm_killswitch.model.hold_set import HoldSet, HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Learned, Revocations
from kcm_trust.statements import lifted

from tests.simulation.trust import identity
from tests.simulation.variants.pages import PagedIsForgotten, PageOfAnyCause
from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class ServesOn(Revocations):
    """An incarnation purges, and serves on."""

    def killed(self, tenant: str) -> bool:
        return False


class ActiveInsteadOfGeneration(Revocations):
    """An output is allowed when the tenant is not killed now, whatever was in between."""

    def still(self, tenant: str, generation: int) -> None:
        self.begin(tenant)


class EpochMerge(Revocations):
    """Of each target the newest statement counts, by a number; older ones are ignored."""

    def __init__(self, registry: Registry, region: str, own_key: str = "") -> None:
        super().__init__(registry, region, own_key)
        self._epochs: dict[tuple[str, str], int] = {}

    def _index(self, record: HoldState) -> None:
        target = (record.hold.scope, record.hold.target)
        epoch = record.hold.issued_ms if record.lift is None else lifted(record.lift)[0]
        if epoch < self._epochs.get(target, 0):
            return
        self._epochs[target] = epoch
        self._active.pop(target, None)
        if not record.lifted:
            self._active[target] = {record.hold.id: record}


class LiftAll(Revocations):
    """A lift ends every hold on its target."""

    def _index(self, record: HoldState) -> None:
        if record.lifted:
            self._active.pop((record.hold.scope, record.hold.target), None)
        else:
            super()._index(record)


class StaleOverwrite(Revocations):
    """The message of a target that arrives last counts."""

    def learn(self, record: HoldState) -> Learned:
        target = (record.hold.scope, record.hold.target)
        learned = super().learn(record)
        self._active.pop(target, None)
        if not record.lifted:
            self._active[target] = {record.hold.id: record}
        return learned


class TombstoneDropped(Revocations):
    """A hold that was lifted is forgotten."""

    def learn(self, record: HoldState) -> Learned:
        learned = super().learn(record)
        self.holds = HoldSet.of(one for one in self.holds if not one.lifted)
        return learned


class OwnHoldUnread(Revocations):
    """An instance keeps a hold on its own key, and serves on."""

    def __init__(self, registry: Registry, region: str, own_key: str = "") -> None:
        super().__init__(registry, region)


REVOCATIONS: dict[str, type[Revocations]] = {
    "active-instead-of-generation": ActiveInsteadOfGeneration,
    "epoch-merge": EpochMerge,
    "lift-all": LiftAll,
    "own-hold-unread": OwnHoldUnread,
    "page-of-any-cause": PageOfAnyCause,
    "paged-is-forgotten": PagedIsForgotten,
    "serves-on": ServesOn,
    "stale-overwrite": StaleOverwrite,
    "tombstone-dropped": TombstoneDropped,
}
"""The sets of holds that take the place of production's."""


class AtOnce(FlapDamping):
    """The first success that is heard of is enough, whenever it began."""

    def success(self, link: str, position: int, held_at: int, moment: float, now: float) -> None:
        super().success(link, max(position, held_at), held_at, moment, now)

    def ripe(self, link: str, at_least_s: float = 0.0) -> bool:
        return link in self._runs


def in_flight_attestation_lifts(instance: Instance) -> None:
    """A key's hold is lifted by a success, though that began before the hold."""
    holds: Any = core_part(instance, "key_holds")
    if holds is not None:
        holds.damping = AtOnce(instance.freshness.timing.settle_s)


def cause_ignored(instance: Instance) -> None:
    """A key that has settled lifts every hold on its link, and Cores may lift operators' holds.

    The second part is needed: nobody believes a Core's lift of what an operator placed.
    """
    holds: Any = core_part(instance, "key_holds")
    if holds is None:
        return
    me: Any = _Signing(instance.me)
    naive: Any = AutomaticHolds(replace(instance.host, me=me), instance.state, instance.switch)
    naive.on = lambda link: instance.revocations.active_on("link", link)
    holds.on, holds.refused = naive.on, naive.refused
    holds.place, holds.succeeded = naive.place, naive.succeeded


class _Signing:
    """An instance context that signs in an operator's name."""

    def __init__(self, member: Any) -> None:
        self._member = member
        self.identity = identity("ada")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)


def purge_after_an_await(instance: Instance) -> None:
    """Keys are wiped at once, but the hold is in force only after something was waited for."""
    learning: Any = instance.switch.holds.applier
    learn = learning.learn

    async def later(raw: bytes) -> None:
        await asyncio.sleep(0.05)
        learn(raw)

    def wipe_first(raw: bytes) -> HoldState:
        from kcm_killswitch.replica.hold_applier import to_state

        record = to_state(instance.me.verifier.hold_or_lift(raw))
        if instance.revocations.holds.add(record) is instance.revocations.holds:
            return learn(raw)
        if not record.lifted:
            for tenant in instance.revocations.reach(record.hold.scope, record.hold.target):
                instance.purge(tenant)
        instance.spawn(later(raw))
        return record

    learning.learn = wipe_first


def no_relay(instance: Instance) -> None:
    """Only the Core that an operator asked writes a hold to its stream."""
    replicator: Any = instance.switch.holds.replicator
    keep = replicator.keep

    def only_the_issuer(hold_id: bytes, *, at_once: bool = False) -> None:
        if at_once:
            keep(hold_id, at_once=True)

    replicator.keep = only_the_issuer
