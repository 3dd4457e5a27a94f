"""Holds, their previews and their export."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.admin.kill_status import IncarnationStatus
from kcm_schemas.codec import Message
from kcm_schemas.control import Cause, Scope
from kcm_schemas.names import U32, U64, Id, Name, Target, Text


class HoldQuery(Message):
    """Ask for the status of one hold."""

    hold_id: Id


class HoldPrefix(Message):
    """Ask for a hold by its id in hexadecimal, or by the first digits of it."""

    prefix: Annotated[str, Field(pattern=rf"^[0-9a-f]{{1,{2 * limits.ID_SIZE}}}\z")]


class HoldView(Message):
    """A hold and its state; ``raw`` is the signed hold, which a lift embeds.

    ``lifted_ms``, ``lifted_by`` and ``lift_reason`` are the time, the signer and the reason of its
    lift. They are 0 and empty while the hold is in force.
    """

    hold_id: Id
    scope: Scope
    target: Target
    cause: Cause
    origin: Name
    issuer: Name
    issued_ms: U64
    reason: Text
    lifted: bool
    lifted_ms: U64
    lifted_by: Text
    lift_reason: Text
    raw: bytes


class HoldMatches(Message):
    """The holds whose ids have the prefix; at most two, which shows that it is ambiguous."""

    holds: Annotated[list[HoldView], Field(max_length=2)]


class HoldPageQuery(Message):
    """Ask for the holds with an id above ``after`` (all zeros: from the start), ordered by id.

    ``everything`` includes lifted holds; otherwise only holds in force are listed.
    """

    after: Id
    everything: bool


class HoldPage(Message):
    """Holds that a region knows, ordered by id; ``more`` says whether others follow the last."""

    holds: Annotated[list[HoldView], Field(max_length=limits.HOLD_PAGE_MAX)]
    more: bool


class HoldExport(Message):
    """A hold and its outcome, all as signed: what a third party can verify offline.

    ``lift`` is the lift, or the lift page that ends the hold; it is empty while the hold is in
    force. ``result`` is the signed kill result, empty if there is none. The endorsements of the
    lift's retired signers are fetched page by page (``EndorsementsQuery``).
    """

    hold_id: Id
    complete: bool
    hold: Annotated[bytes, Field(max_length=limits.SIGNED_HOLD_MAX)]
    lift: Annotated[bytes, Field(max_length=limits.LIFTS_MAX * limits.ID_SIZE + 4096)]
    result: Annotated[bytes, Field(max_length=limits.RESULT_MAX)]
    unstored: Text


class PreviewQuery(Message):
    """Ask what a hold with this scope and target would reach; it carries no signed hold.

    A signed hold can be put in force by every party that has it, so a preview must not send one.
    ``instances`` also asks the regions for their incarnations; without it, the registry alone
    answers, at once.
    """

    scope: Scope
    target: Target
    instances: bool


class BlastRadius(Message):
    """What a hold would reach; the preview changes nothing.

    ``total`` counts the tenants; ``tenants`` has the first of them, ordered by name.
    """

    tenants: Annotated[list[Name], Field(max_length=limits.PAGE_ROWS_MAX)]
    total: U32
    services: U32
    regions: list[Name]
    incarnations: list[IncarnationStatus]
