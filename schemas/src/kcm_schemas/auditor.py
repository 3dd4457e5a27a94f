"""The Auditor's messages: signed heads of its journal, and replies to operators.

An operator asks in a signed ``admin`` statement with noun ``auditor``; the reply is a signed
``admin-reply``. A page of the journal contains the emitters' own signed statements, so the reader
does not need to trust the Auditor for them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Name, Text
from kcm_schemas.roster import Role

NOUN: Final = "auditor"
"""The noun of an admin request to an Auditor."""

TAIL_ENTRIES_MAX: Final = 256
"""Entries in one page of the journal: bounds the reply to one request."""

TAIL_BYTES_MAX: Final = 600 * 1024
"""Bytes of statements in one page, so that the signed reply stays below ``BODY_MAX``."""


class AuditHead(Message):
    """Body of a signed ``audit-head`` statement: the journal up to and including entry ``seq``.

    It has everything that a transparency log needs to record.
    """

    auditor: Name
    seq: U64
    head: Digest
    time_ms: U64


class StreamHead(Message):
    """Body of a signed ``stream-head`` statement: the Auditor has the audit stream up to there.

    ``created`` is when the stream was created, in microseconds since 1970: sequences are valid for
    that stream only. ``digest`` is the stream's chain up to and including message ``through``.
    """

    auditor: Name
    region: Name
    created: U64
    through: U64
    digest: Digest
    time_ms: U64


class Trim(Message):
    """Body of a signed ``trim`` statement: the audit stream is trimmed up to and with ``through``.

    ``digest`` is the stream's chain up to there, from which the rest continues. ``heads`` are the
    signed stream heads of the Auditors that have all of it.
    """

    region: Name
    created: U64
    through: U64
    digest: Digest
    issued_ms: U64
    heads: Annotated[
        list[Annotated[bytes, Field(max_length=limits.STREAM_HEAD_MAX)]],
        Field(min_length=1, max_length=limits.TRIM_HEADS_MAX),
    ]


class TailQuery(Message):
    """Ask for the last ``limit`` entries before entry ``before``; 0 means the journal's end."""

    limit: Annotated[int, Field(ge=1, le=TAIL_ENTRIES_MAX)]
    before: U64


class TailEntry(Message):
    """A batch as its emitter signed it, or an incident, whose ``statement`` may be empty."""

    seq: U64
    time_ms: U64
    region: Name | None
    statement: bytes
    incident: Text
    detail: Text


class TailPage(Message):
    """Entries in the journal's order; ``oldest`` is the first one that a query can reach."""

    auditor: Name
    oldest: U64
    entries: Annotated[list[TailEntry], Field(max_length=TAIL_ENTRIES_MAX)]


class EmitterStatus(Message):
    """The state of an emitter on the roster; ``last_seq`` counts in its present incarnation."""

    emitter: Name
    role: Annotated[Role, Field(strict=False)]
    region: Name
    state: Literal["alive", "silent", "stopped", "never", "unfollowed"]
    incarnation: bytes
    last_seq: U64
    last_ms: U64


class FollowedRegion(Message):
    """A region's stream as the Auditor reads it, up to ``position``.

    ``first`` is the first sequence that the stream still has. ``used`` and ``room`` are in bytes; a
    ``room`` of 0 means no bound. ``signed`` is the sequence up to which this Auditor signed that it
    has the stream. ``trimmed`` is the sequence up to which the stream was trimmed, on stream heads
    of ``witnesses`` Auditors. ``lost_first`` to ``lost_last`` were trimmed and are not in this
    journal; both are 0 when nothing is missing.
    """

    region: Name
    reachable: bool
    position: U64
    first: U64
    used: U64
    room: U64
    signed: U64
    trimmed: U64
    witnesses: U32
    lost_first: U64
    lost_last: U64


class AuditorStatus(Message):
    """The journal's size and head, its emitters, and its incidents; ``incidents`` is a count."""

    auditor: Name
    time_ms: U64
    seq: U64
    head: Digest
    events: U64
    incidents: U64
    segment: U64
    regions: list[FollowedRegion]
    emitters: list[EmitterStatus]
