"""The content of a journal, and its one encoding. Pure.

A journal is a sequence of lines, each one JSON object::

    {"hash":"<64 hex>","entry":{"seq":7,"previous":"<64 hex>","time_ms":…,"content":{…}}}

``hash = SHA-256(ctx("kcm/v1/audit-journal", previous, SHA-256(bytes of the entry)))``, with 32 zero
bytes before the first entry. A line has exactly one form. So a verifier needs no JSON library that
agrees with this one: it cuts the entry out at fixed positions and hashes its bytes.

Byte strings within an entry are base64 in the URL-safe alphabet.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, Literal

from kcm_schemas import labels
from kcm_schemas.audit import GENESIS
from kcm_schemas.labels import ctx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

LINE_MAX: Final = 4 * 1024 * 1024
"""Bytes of one line: the positions of as many emitters as a roster can name. A signed batch of
900 KiB takes 1.2 MiB in base64."""

_HEAD: Final = b'{"hash":"'
_MIDDLE: Final = b'","entry":'
_TAIL: Final = b"}\n"
_FIXED: Final = len(_HEAD) + 64 + len(_MIDDLE)


class IncidentKind(StrEnum):
    """The kinds of incidents. ``docs/audit.md`` describes what each may mean."""

    UNTRUSTED = "untrusted"
    MISPLACED = "misplaced"
    MALFORMED = "malformed"
    GAP = "gap"
    DROPPED = "dropped"
    FORK = "fork"
    RESTART = "restart"
    OVERLAP = "overlap"
    SILENT = "silent"
    HEARD = "heard"
    UNREACHABLE = "unreachable"
    REACHABLE = "reachable"
    STREAM_HOLE = "stream-hole"
    STREAM_REPLACED = "stream-replaced"
    STREAM_ROLLED_BACK = "stream-rolled-back"
    TRIM_DISPUTED = "trim-disputed"
    JOURNAL_BEHIND = "journal-behind"
    JOURNAL_LOST = "journal-lost"
    LOSS_ACCEPTED = "loss-accepted"
    JOURNAL_REPAIRED = "journal-repaired"
    SUPPRESSED = "suppressed"


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Batch(_Part):
    """Events exactly as their emitter signed them, from ``position`` in the region's stream."""

    kind: Literal["batch"] = "batch"
    region: str
    position: int
    statement: bytes


class Incident(_Part):
    """Something that should not be. ``first`` and ``last`` count the objects of ``incident``.

    ``digest`` is the SHA-256 of a message that was not trusted (its content is not kept);
    ``statement`` is evidence that its signer cannot deny.
    """

    kind: Literal["incident"] = "incident"
    incident: IncidentKind
    region: str | None = None
    position: int = 0
    emitter: str | None = None
    incarnation: bytes = b""
    first: int = 0
    last: int = 0
    detail: str = ""
    digest: bytes = b""
    statement: bytes = b""


class Passed(_Part):
    """A region's stream was read up to ``position``, where its chain has this ``digest``.

    An empty ``digest`` means that messages before are not known. ``mark`` is the last position at
    which readers of a stream compare, with its digest; 0 if there is none yet. ``message`` is the
    digest of the message at ``position``, for a comparison with the stream; it is absent if it is
    not known, as in journals of earlier versions.
    """

    kind: Literal["passed"] = "passed"
    region: str
    position: int
    digest: bytes
    mark: int
    mark_digest: bytes
    message: bytes = Field(default=b"", exclude_if=lambda value: not value)


class Trimmed(_Part):
    """A Core's signed ``trim``: messages up to ``through`` were removed from the stream.

    ``witnesses`` is the number of Auditors whose heads in it state that they have them.
    """

    kind: Literal["trimmed"] = "trimmed"
    region: str
    through: int
    witnesses: int
    statement: bytes


class Origin(_Part):
    """From here on, positions of this region belong to the stream created at ``created``.

    ``had`` is the position up to which that very stream was read and trimmed before it was rolled
    back to a later position: these messages are not in the stream any more, and are recorded.
    """

    kind: Literal["origin"] = "origin"
    region: str
    created: str
    had: int = Field(default=0, exclude_if=lambda value: not value)


class IncarnationPosition(_Part):
    """The position of one incarnation of one emitter."""

    emitter: str
    incarnation: bytes
    next_seq: int
    head: bytes
    last_ms: int
    stopped: bool
    current: bool


class RegionPosition(_Part):
    """The position up to which a stream is recorded; see ``Passed``, ``Trimmed``, ``Origin``."""

    region: str
    created: str
    position: int
    passed: int
    digest: bytes
    mark: int
    mark_digest: bytes
    trimmed: int
    witnesses: int
    lost_first: int
    lost_last: int
    had: int = Field(default=0, exclude_if=lambda value: not value)
    message: bytes = Field(default=b"", exclude_if=lambda value: not value)


class Positions(_Part):
    """All positions: the first entry of each segment, so that a start reads only one segment."""

    kind: Literal["positions"] = "positions"
    auditor: str
    events: int = 0
    incidents: int = 0
    incarnations: tuple[IncarnationPosition, ...] = ()
    regions: tuple[RegionPosition, ...] = ()


class Head(_Part):
    """A signed ``audit-head`` statement about the entry before this one."""

    kind: Literal["head"] = "head"
    statement: bytes


Content = Batch | Incident | Origin | Passed | Trimmed | Positions | Head


class Entry(_Part):
    """One entry with its position in the chain. ``previous`` is in hexadecimal."""

    seq: int
    previous: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    time_ms: int
    content: Annotated[Content, Field(discriminator="kind")]


class BadLine(Exception):
    """A line is not a journal line; the text has the reason."""


def chain(previous: bytes, raw: bytes) -> bytes:
    """Return the hash of an entry's bytes after ``previous``."""
    return sha256(ctx(labels.AUDIT_JOURNAL, previous, sha256(raw).digest())).digest()


def write(entry: Entry) -> tuple[bytes, bytes]:
    """Return an entry as a line, and its hash."""
    raw = entry.model_dump_json().encode()
    digest = chain(bytes.fromhex(entry.previous), raw)
    return _HEAD + digest.hex().encode() + _MIDDLE + raw + _TAIL, digest


def read(line: bytes) -> tuple[Entry, bytes]:
    """Return a line's entry and hash; raises ``BadLine``. The line before is not checked."""
    if len(line) > LINE_MAX:
        raise BadLine(f"the line has more than {LINE_MAX} bytes")
    if not line.endswith(_TAIL):
        raise BadLine("the line is not finished")
    claimed, middle = line[len(_HEAD) : _FIXED - len(_MIDDLE)], line[_FIXED - len(_MIDDLE) : _FIXED]
    if not line.startswith(_HEAD) or middle != _MIDDLE:
        raise BadLine("not a journal line")
    raw = line[_FIXED : -len(_TAIL)]
    try:
        entry = Entry.model_validate_json(raw)
        digest = chain(bytes.fromhex(entry.previous), raw)
    except ValidationError:
        raise BadLine("the entry is not well formed") from None
    if digest.hex().encode() != claimed:
        raise BadLine("the entry does not have this hash")
    if entry.model_dump_json().encode() != raw:
        raise BadLine("the entry is not in its canonical encoding")
    return entry, digest


START: Final = GENESIS
"""The hash before the first entry."""
