"""The audit event of a request to encrypt or decrypt: one for each, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from kcm_runtime.audit.port import AuditRoom, Emit
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject

EVENTS: Final = {"encrypt": EventType.DATA_ENCRYPT, "decrypt": EventType.DATA_DECRYPT}
"""The event type of each operation: a requester cannot choose it."""


@dataclass(slots=True)
class Tally:
    """How many records a request has, and how many of them failed."""

    count: int = 0
    failed: int = 0


def check_room(room: AuditRoom) -> None:
    """Refuse a request while the audit trail has no room: what cannot be recorded is not done.

    Raises ``unavailable``, which is not recorded either: the rest is reserved for purges.
    """
    if not room.has_room:
        raise KcmError(Code.UNAVAILABLE, room.refusal)


@contextmanager
def recorded(
    emit: Emit, asked: DataSubject, *, actor: str | None, detail: str = ""
) -> Iterator[Tally]:
    """Record what is done inside, once, as done for ``actor``; an exception is its code.

    A request that is cancelled has no output, so all of its records failed.
    """
    tally, code = Tally(), Code.INTERNAL
    try:
        yield tally
        code = Code.OK
    except KcmError as error:
        code = error.code
        raise
    finally:
        emit(
            EVENTS.get(asked.operation, EventType.DATA_REFUSED),
            actor=actor,
            tenant=asked.tenant,
            service=asked.service,
            code=code,
            count=tally.count,
            failed=tally.failed if code is Code.OK else tally.count,
            detail=detail,
        )
