"""The result of a finished kill: who purged, who cannot serve any more, and the receipts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.admin import BootStatus, RegionStatus
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Id, Name


class Result(Message):
    """A Core's word that a kill is complete, and what it rests on.

    ``instance`` in ``region`` concluded it first, at ``concluded_ms`` by its own clock, by the
    roster of version ``roster``; it had noticed the kill at ``heard_ms``. ``regions`` and ``boots``
    are as in a hold's status. ``receipts`` are the signed receipts of the boots that gave one, in
    their order; ``left_out`` is how many of them are not here for want of room. Other Cores
    countersign the very same body.
    """

    hold_id: Id
    region: Name
    instance: Name
    heard_ms: U64
    concluded_ms: U64
    roster: U32
    regions: Annotated[list[RegionStatus], Field(min_length=1, max_length=64)]
    boots: Annotated[list[BootStatus], Field(max_length=limits.RESULT_BOOTS_MAX)]
    receipts: Annotated[list[bytes], Field(max_length=limits.RESULT_BOOTS_MAX)]
    left_out: U32
