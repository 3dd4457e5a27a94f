"""What arrives from a region's audit stream, and whether a batch in it is well formed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from kcm_schemas import limits, subjects
from kcm_schemas.audit import AuditBatch, AuditEvent
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError

from kcm_auditor.positions import message_digest

SEQ_MAX: Final = (1 << 63) - 2
"""The largest number of an event: the next one must still fit into a message."""


class Verdict(Enum):
    """The comparison of a region's stream with the journal."""

    NEW = "new"
    SAME = "same"
    REPLACED = "replaced"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of a region's audit stream."""

    region: str
    position: int
    subject: str
    body: bytes


@dataclass(frozen=True, slots=True)
class FoundTrim:
    """A verified trim: its stream, position, digest, and number of witnesses."""

    region: str
    through: int
    digest: bytes
    witnesses: int
    statement: bytes


def digest_of(arrival: Arrival) -> bytes:
    """Return the digest of a message at its position."""
    return message_digest(arrival.position, arrival.subject, arrival.body)


def emitter_of(arrival: Arrival) -> str:
    """Return the emitter that a message's subject names in its region; empty if it is not valid."""
    try:
        region, emitter = subjects.read_audit(arrival.subject)
    except KcmError:
        return ""
    return emitter if region == arrival.region else ""


def well_formed(batch: AuditBatch) -> bool:
    """Whether numbers begin at 1 and stay in range, and every event decodes."""
    if batch.first < 1 or numbers_of(batch)[1] > SEQ_MAX:
        return False
    try:
        for event in batch.events:
            decode(AuditEvent, event, limit=limits.AUDIT_EVENT_MAX)
    except KcmError:
        return False
    return True


def numbers_of(batch: AuditBatch) -> tuple[int, int]:
    """Return the numbers of a batch's first and last event."""
    return batch.first, batch.first + len(batch.events) - 1
