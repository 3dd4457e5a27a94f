"""Naive belief: what was judged once stays, or whoever left takes everything along."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_control.completeness import RegionFacts
from kcm_control.holds import HoldRecord
from kcm_trust.statements import signed_by

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


def roster_at_the_start(instance: Instance) -> None:
    """Whom to believe is read once, when a boot begins."""
    holder: Any = instance.me.rosters
    holder.take = lambda raw: False


def judged_by_arrival(instance: Instance) -> None:
    """What was judged by one roster is judged so for ever; a new one is for what comes later."""
    learning: Any = instance.switch.learning
    learning.judge_again = lambda names: []


def retired_holds_end(instance: Instance) -> None:
    """The holds of somebody end with the signer's retirement."""
    learning: Any = instance.switch.learning
    again = learning.judge_again

    def without_theirs(names: frozenset[str]) -> list[bytes]:
        changed: list[bytes] = again(names)
        for known in list(instance.revocations.holds):
            if signed_by(known.raw, instance.me.rosters.left & names):
                instance.revocations.judge(known.hold.id, None)
                changed.append(known.hold.id)
        return changed

    learning.judge_again = without_theirs


def lower_roster_counts(instance: Instance) -> None:
    """A kill is complete when everybody has purged, by whichever roster they judge now."""
    kills: Any = getattr(instance, "kills", None)
    if kills is None:
        return
    ask = kills._facts

    async def by_whichever(region: str, record: HoldRecord) -> RegionFacts | None:
        facts: RegionFacts | None = await ask(region, record)
        return None if facts is None else replace(facts, roster=0)

    kills._facts = by_whichever
