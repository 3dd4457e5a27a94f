"""The result of a finished kill: made once, kept unchanged, and the same from every Core.

Only the Core that heard it knows which incarnations were registered when, and how long after the
kill a receipt arrived. So the first Core that finds a kill complete writes this down, and all
others report the same. A hold that was lifted and is in force again, by another roster, has to be
finished again: a result counts for the *period* of its hold in which it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from kcm_schemas import limits
from kcm_schemas.admin.kill_status import Concluded, HoldStatus
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.kill_result import ITEM_MAX, Result, room_for_receipts
from kcm_schemas.text import counted

from kcm_killswitch.model.completeness import Arrival, RegionFacts
from kcm_killswitch.model.incarnations import Key


def conclude(
    status: HoldStatus,
    receipts: Mapping[Key, Arrival],
    *,
    region: str,
    instance: str,
    heard_ms: int,
    now_ms: int,
    roster: int,
) -> Result:
    """The result of a kill that a Core finds complete, with as many receipts as there is room for.

    Raises ``too_large`` when there is no room even for the incarnations.
    """
    keys = [(one.instance, one.incarnation) for one in status.incarnations if one.how == "receipt"]
    found = [receipts[key].raw for key in keys if key in receipts and receipts[key].raw]
    if len(status.incarnations) > limits.RESULT_INCARNATIONS_MAX:
        raise _too_large(status)
    bare = Result(
        hold_id=status.hold_id,
        region=region,
        instance=instance,
        heard_ms=heard_ms,
        concluded_ms=now_ms,
        roster=roster,
        regions=status.regions,
        incarnations=status.incarnations,
        receipts=[],
        left_out=len(keys),
    )
    room = room_for_receipts(bare)
    if room < 0:
        raise _too_large(status)
    kept = []
    for raw in found:
        room -= len(raw) + ITEM_MAX
        if room < 0:
            break
        kept.append(raw)
    return bare.model_copy(update={"receipts": kept, "left_out": len(keys) - len(kept)})


def _too_large(status: HoldStatus) -> KcmError:
    incarnations = counted(len(status.incarnations), "incarnation")
    text = f"a result has no room for {incarnations}; it is not stored"
    return KcmError(Code.TOO_LARGE, text)


def of_this_period(result: Result, region: str, places: Mapping[str, int], roster: int) -> bool:
    """Whether a result is of the hold as it is in force now, by the roster of this version.

    ``places`` maps regions to the present sequence of the hold in their streams, as far as
    ``region`` knows it. A hold that was lifted meanwhile is in force again by a higher roster, at
    another sequence. The positions in other regions count if the result names only these.
    """
    if not places.get(region):
        return False
    lay = {one.region: one.durable_at for one in result.regions}
    asked = [region] if region in lay else lay
    there = any(lay[name] and lay[name] == places.get(name) for name in asked)
    return there or result.roster == roster


def covers(result: Result, status: HoldStatus, facts: Mapping[str, RegionFacts | None]) -> bool:
    """Whether another Core's result lists every incarnation that these facts say it must list.

    These are incarnations that were registered before the hold, and gave a receipt for it or were
    heard after it. One that began later may have begun after the kill was complete; one that was
    silent since may be forgotten there.
    """
    if {one.region for one in status.regions} - {one.region for one in result.regions}:
        return False
    before = {
        (incarnation.instance, incarnation.incarnation): incarnation.latest > one.durable_at
        for one in facts.values()
        if one is not None
        for incarnation in one.incarnations
        if (incarnation.first or incarnation.latest) <= one.durable_at
    }
    listed = {
        (incarnation.instance, incarnation.incarnation) for incarnation in result.incarnations
    }
    purged = {
        (one.instance, one.incarnation) for one in status.incarnations if one.how == "receipt"
    }
    heard = {key for key, heard in before.items() if heard}
    return not ((purged & before.keys()) | heard) - listed


def rank(result: Result) -> tuple[int, bytes]:
    """The order of results of one kill: the first one stays."""
    return result.concluded_ms, sha256(encode(result)).digest()


def earliest(results: Iterable[Result]) -> Result:
    """The result that is reported, independent of which Core chooses."""
    return min(results, key=rank)


def concluded_of(result: Result) -> Concluded:
    """The part of a result that a status contains."""
    return Concluded(
        region=result.region,
        instance=result.instance,
        heard_ms=result.heard_ms,
        concluded_ms=result.concluded_ms,
        roster=result.roster,
        receipts=len(result.receipts),
        left_out=result.left_out,
    )


def told(status: HoldStatus, result: Result, unstored: str) -> HoldStatus:
    """A hold's status with its result; for a lifted hold, the regions are those of the lift."""
    changed = {
        "incarnations": result.incarnations,
        "concluded": concluded_of(result),
        "unstored": unstored,
    }
    if not status.lifted:
        changed |= {"regions": result.regions, "complete": True}
    return status.model_copy(update=changed)
