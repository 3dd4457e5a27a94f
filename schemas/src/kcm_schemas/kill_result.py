"""The result of a completed kill: each incarnation's state, and the receipts."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.admin.kill_status import IncarnationStatus, RegionStatus
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.names import U32, U64, Id, Name

ENVELOPE_MAX: Final = 4096
"""Bytes around a result's body: eight signatures, and names."""

ITEM_MAX: Final = 5
"""Bytes in front of one receipt, and of their list."""


class Result(Message):
    """A Core's statement that a kill is complete, and the evidence for it.

    ``instance`` in ``region`` concluded the kill first, at ``concluded_ms``, by the roster of
    version ``roster``; it had learned of the kill at ``heard_ms``. Both are Unix milliseconds by
    its clock. ``regions`` and ``incarnations`` are as in ``HoldStatus``. ``receipts`` are the
    signed receipts of the incarnations, in their order; ``left_out`` counts those for which there
    was no room. Other Cores countersign the same body.
    """

    hold_id: Id
    region: Name
    instance: Name
    heard_ms: U64
    concluded_ms: U64
    roster: U32
    regions: Annotated[list[RegionStatus], Field(min_length=1, max_length=64)]
    incarnations: Annotated[
        list[IncarnationStatus], Field(max_length=limits.RESULT_INCARNATIONS_MAX)
    ]
    receipts: Annotated[list[bytes], Field(max_length=limits.RESULT_INCARNATIONS_MAX)]
    left_out: U32


def room_for_receipts(result: Result) -> int:
    """Return the bytes left for more receipts, ``ITEM_MAX`` with each; negative: none."""
    most = limits.RESULT_MAX - ENVELOPE_MAX - 2 * ITEM_MAX
    bare = result.model_copy(update={"receipts": []})
    used = sum(len(raw) + ITEM_MAX for raw in result.receipts)
    try:
        return most - len(encode(bare, limit=most)) - used
    except KcmError:
        return -1
