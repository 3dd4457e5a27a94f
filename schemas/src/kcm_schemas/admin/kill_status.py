"""The status of a kill: each region, each incarnation, and the stored kill result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas.codec import Message
from kcm_schemas.control import Cause, Scope
from kcm_schemas.names import U32, U64, Id, Name, Target, Text, Trouble
from kcm_schemas.roster import Role


class IncarnationStatus(Message):
    """One incarnation in the status of a kill.

    ``receipt``: its signed receipt says that it purged. ``started-after``: it learned of the hold
    before it served. ``lease-ended``: its state is unknown, but its control lease and all its
    answer leases have ended. Otherwise ``waiting``; ``trouble`` then says why a Core's disk does
    not store the hold, for example ``disk full``. ``left_ms`` is the time in milliseconds after
    which a dead incarnation counts as ``lease-ended``, 0 if the clock does not determine it.
    ``retired``: the roster lists the instance as retired.
    """

    instance: Name
    incarnation: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    how: Literal["receipt", "waiting", "started-after", "lease-ended"]
    keys: U32
    purge_us: U32
    after_ms: U32
    trouble: Trouble
    retired: bool
    left_ms: U32


class RegionStatus(Message):
    """How far a hold has come in a region.

    ``durable``: its control stream acknowledged the hold. ``watching``: durable, but the stream
    watch of the answering Core is too short to exclude that an incarnation is missing; the region
    counts after the longest lease. ``differing``: durable, but the Cores of the region know
    different tenants and links; the region counts after the longest lease, too. ``leases-ended``:
    the region cannot be reached, and everything that it served has ended, because its peer leases
    have. ``unbounded``: the region cannot be reached, and the tenants' region quorum lets it serve
    on. Otherwise ``waiting``. ``left_ms`` is the time in milliseconds after which the region counts
    by the clock alone, 0 if the clock does not determine it.

    For a lifted hold: ``durable`` if the lift is durable, otherwise ``waiting``.
    """

    region: Name
    durable_at: U64
    how: Literal["durable", "watching", "differing", "leases-ended", "unbounded", "waiting"]
    left_ms: U32


class Concluded(Message):
    """The stored kill result: the Core that concluded the kill first, and its times.

    ``heard_ms`` is when that Core first learned of the kill; the ``after_ms`` of each incarnation
    counts from then. Times are Unix milliseconds by that Core's clock. ``receipts`` counts the
    signed receipts in the result, and ``left_out`` those for which it has no room.
    """

    region: Name
    instance: Name
    heard_ms: U64
    concluded_ms: U64
    roster: U32
    receipts: U32
    left_out: U32


class HoldStatus(Message):
    """How far a hold has come; it is complete when every region and every incarnation is.

    A completed kill has a stored result. ``regions`` and ``incarnations`` are then those of
    ``concluded``, whichever Core answers. ``unstored`` says why the result of a completed kill is
    not stored or cannot be read; otherwise it is empty.

    A lifted hold is complete when the lift is durable in every region. ``incarnations`` are then
    those of the kill result, or empty if there is none.
    """

    hold_id: Id
    scope: Scope
    target: Target
    cause: Cause
    lifted: bool
    complete: bool
    regions: list[RegionStatus]
    incarnations: list[IncarnationStatus]
    concluded: Concluded | None = None
    unstored: Text = ""
