"""What an Auditor says: signed heads of its journal, and answers to operators.

An operator asks in a signed ``admin`` statement with noun ``auditor``; the answer is a signed
``admin-reply``. A page of the journal brings the emitters' own signed statements, so the reader
need not believe the Auditor about them.
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
"""Entries in one page of the journal: bounds the answer to one request."""

TAIL_BYTES_MAX: Final = 600 * 1024
"""Bytes of statements in one page, so that the signed answer stays below a message's bound."""


class AuditHead(Message):
    """Body of a signed ``audit-head`` statement: the journal up to and with entry ``seq``.

    It says everything that a transparency log has to take.
    """

    auditor: Name
    seq: U64
    head: Digest
    time_ms: U64


class StreamHead(Message):
    """Body of a signed ``stream-head`` statement: an Auditor has a region's audit stream so far.

    ``created`` is when the stream was made, in microseconds since 1970: sequences count in that
    stream alone. ``digest`` is the stream's chain up to and with message ``through``.
    """

    auditor: Name
    region: Name
    created: U64
    through: U64
    digest: Digest
    time_ms: U64


class Trim(Message):
    """Body of a signed ``trim`` statement: the audit stream is emptied up to and with ``through``.

    ``digest`` is the stream's chain up to there, from which the rest goes on; ``heads`` are the
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
    """Ask for the last ``limit`` entries before entry ``before``; 0 is the end of the journal."""

    limit: Annotated[int, Field(ge=1, le=TAIL_ENTRIES_MAX)]
    before: U64


class TailEntry(Message):
    """A batch as its emitter signed it, or an incident (then ``statement`` may be empty)."""

    seq: U64
    time_ms: U64
    region: Name | None
    statement: bytes
    incident: Text
    detail: Text


class TailPage(Message):
    """Entries in the journal's order; ``oldest`` is the first that a query can still reach."""

    auditor: Name
    oldest: U64
    entries: Annotated[list[TailEntry], Field(max_length=TAIL_ENTRIES_MAX)]


class EmitterStatus(Message):
    """Where an emitter of the roster stands; ``last_seq`` counts in its present incarnation."""

    emitter: Name
    role: Annotated[Role, Field(strict=False)]
    region: Name
    state: Literal["alive", "silent", "stopped", "never", "unfollowed"]
    incarnation: bytes
    last_seq: U64
    last_ms: U64


class FollowedRegion(Message):
    """A region's stream as the Auditor reads it, up to ``position``.

    ``first`` is the first sequence that the stream still has; ``used`` and ``room`` are in bytes (a
    ``room`` of 0 has no bound). ``signed`` is up to where this Auditor signed that it has the
    stream. ``trimmed`` is up to where the stream was emptied, on the word of ``witnesses``
    Auditors. ``lost_first`` to ``lost_last`` is what was trimmed and is not in this journal; 0 when
    nothing is missing.
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
    """The journal's size and head, who is heard, and what is wrong. ``incidents`` counts all."""

    auditor: Name
    time_ms: U64
    seq: U64
    head: Digest
    events: U64
    incidents: U64
    segment: U64
    regions: list[FollowedRegion]
    emitters: list[EmitterStatus]
