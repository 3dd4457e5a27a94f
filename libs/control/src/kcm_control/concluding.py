"""The result of a finished kill: made once, kept as it is, and told by whoever is asked.

Who was on record when, and how long after the kill a receipt came, no Core knows but the one that
heard it. So the first one that finds a kill complete writes it down, and all others tell the same.
A hold that was lifted and is in force again, by another roster, is finished anew: a result counts
for the *period* of its hold in which it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.admin import Concluded, HoldStatus
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.kill_result import Result

from kcm_control.boots import Key
from kcm_control.completeness import Arrival

ENVELOPE_MAX: Final = 4096
"""Bytes around a result's body: eight signatures, and names."""

ITEM_MAX: Final = 5
"""Bytes in front of one receipt, and of their list."""


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
    """What a Core finds that is complete, with as many of the receipts as there is room for.

    Raises ``too_large`` when there is none for the boots alone.
    """
    keys = [(one.instance, one.boot) for one in status.boots if one.how == "receipt"]
    found = [receipts[key].raw for key in keys if key in receipts and receipts[key].raw]
    if len(status.boots) > limits.RESULT_BOOTS_MAX:
        raise _too_large(status)
    bare = Result(
        hold_id=status.hold_id,
        region=region,
        instance=instance,
        heard_ms=heard_ms,
        concluded_ms=now_ms,
        roster=roster,
        regions=status.regions,
        boots=status.boots,
        receipts=[],
        left_out=len(keys),
    )
    most = limits.RESULT_MAX - ENVELOPE_MAX - 2 * ITEM_MAX
    try:
        room = most - len(encode(bare, limit=most))
    except KcmError:
        raise _too_large(status) from None
    kept = []
    for raw in found:
        room -= len(raw) + ITEM_MAX
        if room < 0:
            break
        kept.append(raw)
    return bare.model_copy(update={"receipts": kept, "left_out": len(keys) - len(kept)})


def _too_large(status: HoldStatus) -> KcmError:
    text = f"a result has no room for {len(status.boots)} boots: none is stored"
    return KcmError(Code.TOO_LARGE, text)


def of_this_period(result: Result, region: str, place: int, roster: int) -> bool:
    """Whether a result is of the hold as it is in force now, by the roster of this version.

    ``place`` is where the hold lies in the stream of ``region`` now. A hold that was lifted
    meanwhile is in force again by a higher roster, and lies somewhere else.
    """
    if not place:
        return False
    there = any(one.region == region and one.durable_at == place for one in result.regions)
    return there or result.roster == roster


def rank(result: Result) -> tuple[int, bytes]:
    """The order of results of one kill: the first one stays."""
    return result.concluded_ms, sha256(encode(result)).digest()


def earliest(results: Iterable[Result]) -> Result:
    """The one of them that is told, whoever chooses."""
    return min(results, key=rank)


def concluded_of(result: Result) -> Concluded:
    """What a status says of a result."""
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
    """A hold's status with its result: of one that is lifted, the regions are the lift's."""
    changed = {"boots": result.boots, "concluded": concluded_of(result), "unstored": unstored}
    if not status.lifted:
        changed |= {"regions": result.regions, "complete": True}
    return status.model_copy(update=changed)
