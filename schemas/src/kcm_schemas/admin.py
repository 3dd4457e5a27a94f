"""Operator to Core: every request is signed, every reply too.

An unsigned reply would let a broker tell an operator that a kill is complete.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas.codec import Message
from kcm_schemas.codes import CodeField
from kcm_schemas.control import Cause, Scope
from kcm_schemas.names import U32, U64, Digest, Id, Name, Text
from kcm_schemas.registry import FencePolicy
from kcm_schemas.roster import Role


class AdminRequest(Message):
    """Body of a signed ``admin`` statement; ``payload`` is the message of that noun and verb."""

    region: Name
    noun: Name
    verb: Name
    request_id: Id
    deadline_ms: U64
    payload: bytes


class AdminReply(Message):
    """Body of a signed ``admin-reply`` statement, bound to the request it answers."""

    request: Digest
    code: CodeField
    detail: Text
    payload: bytes


class Empty(Message):
    """Nothing to say."""


class PutStatement(Message):
    """Carry a signed tenant, link, service, hold or lift to a region."""

    statement: bytes


class LinkView(Message):
    """A customer's key as a Core of a region found it when it tried it, and linked it.

    ``ms`` is how long one unwrap took there.
    """

    link: Name
    region: Name
    mechanism: Text
    key_version: Text
    principal: Text
    ms: U32


class TenantQuery(Message):
    """Which tenant to show."""

    tenant: Name


class ServiceView(Message):
    """A service and the current version of its key."""

    service: Name
    l3_version: U32


class TenantView(Message):
    """A tenant as a region sees it.

    ``state``: killed (a hold is on it), open (the Core that answers has its root open), or closed
    (that Core opens it when it is asked for).
    """

    tenant: Name
    region: Name
    revision: U64
    link: Name
    uri: Text
    model: Text
    regions: list[Name]
    fence: FencePolicy
    state: Literal["open", "closed", "killed"]
    l2_version: U32
    services: list[ServiceView]
    holds: list[bytes]


class TenantList(Message):
    """Tenants of a region."""

    tenants: list[TenantView]


class HoldQuery(Message):
    """Which hold to report on."""

    hold_id: Id


class HoldView(Message):
    """A hold as it stands; ``raw`` is the signed hold, which a lift embeds.

    ``lifted_ms`` and ``lifted_by`` say when somebody signed its lift, and who: 0 and empty before.
    """

    hold_id: Id
    scope: Scope
    target: Name
    cause: Cause
    origin: Name
    issuer: Name
    issued_ms: U64
    reason: Text
    lifted: bool
    lifted_ms: U64
    lifted_by: Text
    raw: bytes


class HoldList(Message):
    """All holds that a region knows, lifted ones too, oldest first."""

    holds: list[HoldView]


class BootStatus(Message):
    """One boot in a kill's table.

    ``receipt``: it said, signed, that it purged. ``started-after``: it learned of the hold before
    it served. ``lease-ended``: it may be anywhere, but its lease and every answer of it have ended.
    Else ``waiting``.
    """

    instance: Name
    boot: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    how: Literal["receipt", "waiting", "started-after", "lease-ended"]
    keys: U32
    purge_us: U32
    after_ms: U32


class RegionStatus(Message):
    """How far a hold has come in a region.

    ``durable``: acknowledged in its stream. ``fence-ended``: it cannot be reached, and whatever it
    serves has ended, because it has not heard of the others for too long. ``unbounded``: it cannot
    be reached, and the tenants' policy lets it serve on. Else ``waiting``.
    """

    region: Name
    durable_at: U64
    how: Literal["durable", "fence-ended", "unbounded", "waiting"]


class HoldStatus(Message):
    """How far a hold has come; complete when every region and every boot is."""

    hold_id: Id
    scope: Scope
    target: Name
    cause: Cause
    lifted: bool
    complete: bool
    regions: list[RegionStatus]
    boots: list[BootStatus]


class RosterView(Message):
    """The roster that counts for the Core that answers, as it was signed.

    ``missing`` names those who are retired and whose list is not there.
    """

    instance: Name
    roster: bytes
    missing: list[Name]


class LastingPage(Message):
    """A page of the list of what lasts of somebody: it counts once a roster names the list."""

    name: Name
    page: U32
    digests: bytes


class SignedQuery(Message):
    """Which statements that may last a region has of somebody; ``after`` is where to go on."""

    name: Name
    after: Text


class SignedEntry(Message):
    """A statement that may last.

    ``what`` says which one, and orders them; ``time_ms`` is when it was signed by its own word, 0
    where it does not say.
    """

    what: Text
    digest: Digest
    time_ms: U64


class SignedPage(Message):
    """Statements of somebody in order; ``more`` says that there are more behind the last one."""

    entries: Annotated[list[SignedEntry], Field(max_length=1024)]
    more: bool


class PreviewQuery(Message):
    """Which hold to preview: its scope and target, and no signed hold.

    Whoever carries a signed hold can put it in force, so asking about one must not send one.
    """

    scope: Scope
    target: Name


class BlastRadius(Message):
    """What a hold would reach, and nothing is changed."""

    tenants: list[Name]
    services: U32
    regions: list[Name]
    boots: list[BootStatus]
