"""When a kill is complete.

For each region in scope the hold is acknowledged at stream sequence ``k``, and every boot on record
there (lease records read after ``k``) has receipted itself, unless its first record lies above
``k``: that boot caught up past the hold before it served. Memory of who was seen lately is never
used: a Core that started a second ago would know only itself, and everything would be complete at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kcm_schemas.admin import BootStatus, HoldStatus, RegionStatus
from kcm_schemas.control import Boot, Receipt

from kcm_control.boots import Key
from kcm_control.holds import HoldRecord


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """What a region said after the hold was durable there (``durable_at`` 0: it is not)."""

    durable_at: int
    boots: Sequence[Boot]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A receipt, and how long after the kill was published it came, in milliseconds."""

    receipt: Receipt
    after_ms: int


def hold_status(
    record: HoldRecord,
    regions: Mapping[str, RegionFacts | None],
    receipts: Mapping[Key, Arrival],
) -> HoldStatus:
    """How far a hold has come.

    ``regions`` maps every region in scope to its facts, or to ``None`` (not heard from);
    ``receipts`` maps instances and boot ids to the receipts of this hold: nobody's receipt counts
    for somebody else's boot. A region in which nobody is on record has not really answered: at
    least the Core that says so is.
    """
    boots = [
        _boot_status(name, facts, boot, receipts.get((boot.instance, boot.boot)))
        for name, facts in regions.items()
        if facts is not None
        for boot in facts.boots
    ]
    durable = all(
        facts is not None and facts.durable_at > 0 and facts.boots for facts in regions.values()
    )
    return HoldStatus(
        hold_id=record.hold.id,
        scope=record.hold.scope,
        target=record.hold.target,
        cause=record.hold.cause,
        lifted=record.lifted,
        complete=durable and bool(regions) and all(boot.how != "waiting" for boot in boots),
        regions=[
            RegionStatus(region=name, durable_at=facts.durable_at if facts else 0)
            for name, facts in regions.items()
        ],
        boots=boots,
    )


def _boot_status(
    region: str, facts: RegionFacts, boot: Boot, arrival: Arrival | None
) -> BootStatus:
    later = facts.durable_at > 0 and boot.first > facts.durable_at
    return BootStatus(
        instance=boot.instance,
        boot=boot.boot,
        role=boot.role,
        region=region,
        how="receipt" if arrival else "started-after" if later else "waiting",
        keys=arrival.receipt.keys if arrival else 0,
        purge_us=arrival.receipt.purge_us if arrival else 0,
        after_ms=arrival.after_ms if arrival else 0,
    )
