"""Naive belief: what was judged once stays, or whoever left takes everything along."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.completeness import RegionFacts
from kcm_runtime.roster.follower import RosterFollower
from kcm_trust.statements import signed_by

from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


def roster_at_the_start(instance: Instance) -> None:
    """Whom to believe is read once, when an incarnation begins."""
    holder: Any = instance.me.rosters
    holder.take = lambda raw: False


def judged_by_arrival(instance: Instance) -> None:
    """What was judged by one roster is judged so for ever; a new one is for what comes later."""
    learning: Any = instance.switch.holds.applier
    learning.judge_again = lambda names: []


def retired_holds_end(instance: Instance) -> None:
    """The holds of somebody end with the signer's retirement."""
    learning: Any = instance.switch.holds.applier
    again = learning.judge_again

    def without_theirs(names: frozenset[str]) -> list[bytes]:
        changed: list[bytes] = again(names)
        for known in list(instance.revocations.holds):
            if signed_by(known.raw, instance.me.rosters.left & names):
                instance.revocations.judge(known.hold.id, None)
                changed.append(known.hold.id)
        return changed

    learning.judge_again = without_theirs


def peer_lease_of_any_roster(instance: Instance) -> None:
    """A region whose holds are all here gets a peer lease, whichever roster it judges by."""
    regions: Any = core_part(instance, "regions")
    if regions is None:
        return
    pull = regions.pull

    async def by_any(*what: Any) -> Any:
        reply = await pull(*what)
        return None if reply is None else reply.model_copy(update={"roster": 0})

    regions.pull = by_any


def believes_any_peer_lease(instance: Instance) -> None:
    """A peer lease vouches for everybody who reads it, by whichever roster they judge."""
    reader: Any = instance.switch.reader
    believe = reader.take_peer_lease
    reader.take_peer_lease = lambda peer_lease: believe(peer_lease.model_copy(update={"roster": 0}))


class _StoredAnywhere(RosterFollower):
    """Takes the roster for stored as soon as it counts here."""

    @property
    def stored_since(self) -> float:
        return float("-inf")


def lower_roster_counts(instance: Instance) -> None:
    """A kill is complete when everybody has purged, by whichever roster they judge now.

    And it does not matter whether the region's stream has the roster.
    """
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    rosters: Any = instance.switch.rosters
    rosters.__class__ = _StoredAnywhere
    ask = kills.facts

    async def by_whichever(*what: Any) -> RegionFacts | None:
        facts: RegionFacts | None = await ask(*what)
        return None if facts is None else replace(facts, roster=0)

    kills.facts = by_whichever
