"""Operator to Core: every request is signed, every reply too.

An unsigned reply would let a broker tell an operator that a kill is complete.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.codes import CodeField
from kcm_schemas.control import Cause, Scope
from kcm_schemas.names import U32, U64, Cursor, Digest, Id, Name, Text, Trouble
from kcm_schemas.registry import RegionQuorum
from kcm_schemas.roster import Role

PageRows = Annotated[int, Field(ge=1, le=limits.PAGE_ROWS_MAX)]
"""Rows that a page may have at most; it may have fewer, and ``more`` says whether others follow."""

TenantState = Literal["open", "closed", "killed"]
"""Killed (a hold is on it), open (the Core that answers has its root open), or closed (that Core
opens it when it is asked for). Only *killed* is the same for every Core."""


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


RoomState = Literal["free", "filling", "crowded"]
"""Filling (nine tenths of the keys that may be are in use), crowded (tenants are sealed for it)."""


class KeyUse(Message):
    """How many root keys one Core has in use, of how many that it may have.

    Where there are more, it seals the tenants that were not used for longest: ``sealed`` of them
    within the last ten minutes, ``sealed_all`` since it started, the last one at ``sealed_ms``.
    ``since_ms``: when ``state`` began. Both moments are by the Core's clock, 0 where there is none.
    """

    core: Name
    region: Name
    state: RoomState
    since_ms: U64
    in_use: U32
    most: U32
    sealed: U32
    sealed_all: U64
    sealed_ms: U64


class LinkListQuery(Message):
    """A page of a region's links, by name, from the first one behind ``after`` on."""

    after: Cursor
    limit: PageRows


class LinkRow(Message):
    """A link as an operator signed it; ``tenants`` is how many the region has on it."""

    link: Name
    region: Name
    revision: U64
    uri: Text
    model: Text
    tenants: U32


class LinkPage(Message):
    """Links of a region, by name; ``total``: how many there are."""

    links: list[LinkRow]
    total: U32
    more: bool


class TenantQuery(Message):
    """Which tenant to find."""

    tenant: Name


class TenantRow(Message):
    """A tenant as a region sees it, from memory: ``services`` and ``holds`` say how many.

    ``core`` is the Core that says so.
    """

    tenant: Name
    region: Name
    core: Name
    revision: U64
    link: Name
    uri: Text
    model: Text
    regions: list[Name]
    region_quorum: RegionQuorum
    state: TenantState
    services: U32
    holds: U32


class TenantListQuery(Message):
    """A page of a region's tenants, by name, from the first one behind ``after`` on."""

    after: Cursor
    limit: PageRows


class TenantPage(Message):
    """Tenants of a region, by name; ``total``: how many there are."""

    tenants: list[TenantRow]
    total: U32
    more: bool


class TenantShowQuery(Message):
    """A tenant, and a page of its services, by name, from the first one behind ``after`` on."""

    tenant: Name
    after: Cursor
    limit: PageRows


class ServiceView(Message):
    """A service and the current version of its key; 0 where this region has none yet."""

    service: Name
    l3_version: U32


class TenantView(Message):
    """A tenant as a region sees it, with its keys' versions and a page of its services.

    ``total``: how many services it has. ``holds`` has ids of the holds that keep it dark, not more
    than ``HOLDS_NAMED_MAX``. ``core`` is the Core that says so.
    """

    tenant: Name
    region: Name
    core: Name
    revision: U64
    link: Name
    uri: Text
    model: Text
    regions: list[Name]
    region_quorum: RegionQuorum
    state: TenantState
    l2_version: U32
    services: list[ServiceView]
    holds: Annotated[list[Id], Field(max_length=limits.HOLDS_NAMED_MAX)]
    total: U32
    more: bool


class ServiceListQuery(Message):
    """A page of a tenant's services, by name, from the first one behind ``after`` on."""

    tenant: Name
    after: Cursor
    limit: PageRows


class ServiceRow(Message):
    """A service as an operator signed it."""

    tenant: Name
    service: Name
    revision: U64


class ServicePage(Message):
    """Services of a tenant, by name; ``total``: how many there are."""

    services: list[ServiceRow]
    total: U32
    more: bool


class HoldQuery(Message):
    """Which hold to report on."""

    hold_id: Id


class HoldPrefix(Message):
    """Which hold to look up: its id in hexadecimal, or the first digits of it."""

    prefix: Annotated[str, Field(pattern=rf"^[0-9a-f]{{1,{2 * limits.ID_SIZE}}}\z")]


class HoldView(Message):
    """A hold as it stands; ``raw`` is the signed hold, which a lift embeds.

    ``lifted_ms``, ``lifted_by`` and ``lift_reason`` say when somebody signed its lift, who, and
    why: 0 and empty before.
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
    lift_reason: Text
    raw: bytes


class HoldMatches(Message):
    """The holds whose ids begin as asked: two at most, which says that there are several."""

    holds: Annotated[list[HoldView], Field(max_length=2)]


class HoldPageQuery(Message):
    """Which holds to list: those with an id above ``after`` (zeros: all), by id.

    ``everything``: lifted ones too, else only those in force.
    """

    after: Id
    everything: bool


class HoldPage(Message):
    """Holds that a region knows, by id; ``more`` says that there are more behind the last one."""

    holds: Annotated[list[HoldView], Field(max_length=limits.HOLD_PAGE_MAX)]
    more: bool


class IncarnationStatus(Message):
    """One incarnation in a kill's table.

    ``receipt``: it said, signed, that it purged. ``started-after``: it learned of the hold before
    it served. ``lease-ended``: it may be anywhere, but its lease and every answer of it have ended.
    Else ``waiting``; ``trouble`` says for what, where that is a Core's disk that does not store the
    hold, as in ``disk full``. ``left_ms`` is when it counts at the latest if it is dead, 0 where
    the clock does not say. ``retired``: the roster says that it acts no more.
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

    ``durable``: acknowledged in its stream. ``watching``: that, too, but the Core that says so has
    not followed the stream for long enough to know that no incarnation is missing; it counts when
    the longest lease has ended since. ``differing``: that, too, but the Cores of the region do not
    know the same tenants and links; it counts at that moment as well. ``leases-ended``: it cannot
    be reached, and whatever it serves has ended, because it has not heard of the others for too
    long. ``unbounded``: it cannot be reached, and the tenants' policy lets it serve on. Else
    ``waiting``. ``left_ms`` is in how many milliseconds it counts by the clock alone, 0 where that
    does not say.

    Of a hold that is lifted: ``durable`` where the lift is, else ``waiting``.
    """

    region: Name
    durable_at: U64
    how: Literal["durable", "watching", "differing", "leases-ended", "unbounded", "waiting"]
    left_ms: U32


class Concluded(Message):
    """The stored result of a finished kill: which Core concluded it first, and when by its clock.

    ``heard_ms`` is when that Core had first noticed the kill: each incarnation's ``after_ms``
    counts from then. ``receipts`` is how many signed receipts the result has, and ``left_out`` how
    many more there were for which it has no room.
    """

    region: Name
    instance: Name
    heard_ms: U64
    concluded_ms: U64
    roster: U32
    receipts: U32
    left_out: U32


class HoldStatus(Message):
    """How far a hold has come; complete when every region and every incarnation is.

    Once that was said it is stored: ``regions`` and ``incarnations`` are then those of
    ``concluded``, whoever answers. ``unstored`` says why the result of a finished kill is not
    stored, or cannot be read; it is empty when it is.

    A hold that is lifted is complete when every region has the lift; ``incarnations`` are then
    those of the kill's result, none where there is none.
    """

    hold_id: Id
    scope: Scope
    target: Name
    cause: Cause
    lifted: bool
    complete: bool
    regions: list[RegionStatus]
    incarnations: list[IncarnationStatus]
    concluded: Concluded | None = None
    unstored: Text = ""


class HoldExport(Message):
    """A hold and what became of it, as it was signed: what another one can check offline.

    ``lift`` is the lift, or the page of lifts that ends the hold, and empty while it is in force.
    ``result`` is the kill's signed result, empty where there is none. What lasts of those who
    signed the lift and left since is asked for page by page (``LastingQuery``).
    """

    hold_id: Id
    complete: bool
    hold: Annotated[bytes, Field(max_length=limits.SIGNED_HOLD_MAX)]
    lift: Annotated[bytes, Field(max_length=limits.LIFTS_MAX * limits.ID_SIZE + 4096)]
    result: Annotated[bytes, Field(max_length=limits.RESULT_MAX)]
    unstored: Text


class RosterView(Message):
    """The roster that counts for the Core that answers, as it was signed.

    ``missing`` names those who are retired and whose list is not there.
    """

    instance: Name
    roster: bytes
    missing: list[Name]


class LastingQuery(Message):
    """Which page to show of the list of what lasts of somebody; the roster says how many."""

    name: Name
    page: U32


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


class RegistryView(Message):
    """What one Core knows of its region's registry, and whether it remembers it.

    ``highest`` is the highest revision of any record. ``digest`` is over everything: two Cores that
    know the same have the same. ``waits`` says why a Core without memory does not serve yet; it is
    empty for one that has.
    """

    core: Name
    memory: bool
    tenants: U32
    links: U32
    services: U32
    highest: U64
    digest: Digest
    waits: Text


class AdoptOrder(Message):
    """An operator's word that the registry with this digest is the region's."""

    digest: Digest


class PreviewQuery(Message):
    """Which hold to preview: its scope and target, and no signed hold.

    Whoever carries a signed hold can put it in force, so asking about one must not send one.
    ``instances`` asks the regions for theirs; without them the registry alone answers, at once.
    """

    scope: Scope
    target: Name
    instances: bool


class BlastRadius(Message):
    """What a hold would reach, and nothing is changed.

    ``total`` says how many tenants that is, ``tenants`` names the first of them by name.
    """

    tenants: Annotated[list[Name], Field(max_length=limits.PAGE_ROWS_MAX)]
    total: U32
    services: U32
    regions: list[Name]
    incarnations: list[IncarnationStatus]
