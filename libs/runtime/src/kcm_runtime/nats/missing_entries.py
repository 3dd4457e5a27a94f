"""What is missing from the region's stream though it was seen there, until it is there again.

Recorded in the audit by whoever wrote it again: not by those who found it written. Whoever may
write to the stream can make that happen as often as they like, so repairs are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from kcm_runtime.audit.pacing import Paced
from kcm_runtime.audit.port import Emit
from kcm_runtime.nats.ports import Entry

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Hole:
    code: Code
    """``tampered`` where something else was in its place, and ``ok`` where nothing was."""
    wrote: bool = False
    """Whether it was written again here, acknowledged or not."""


class Missing:
    """Entries of one kind that the stream lacks, by their keys."""

    def __init__(self, what: str, emit: Emit) -> None:
        """``what`` names the kind, as ``a hold``."""
        self._what: Final = what
        self._emit: Final = emit
        self._holes: dict[Hashable, _Hole] = {}
        self._paced: Final = Paced()

    def found(self, key: Hashable, stored: Entry | None) -> None:
        """In place of an entry the stream has this."""
        other = stored is not None and bool(stored.data)
        self._holes.setdefault(key, _Hole(Code.TAMPERED if other else Code.OK))

    @contextmanager
    def writing(self, key: Hashable) -> Iterator[None]:
        """An entry is written; when it is acknowledged to somebody else, it is not ours."""
        hole = self._holes.get(key)
        if hole is None:
            yield
            return
        hole.wrote = True
        try:
            yield
        except KcmError as error:
            if error.code is Code.CONFLICT:
                hole.wrote = False
            raise

    def seen(self, key: Hashable, subject: str) -> None:
        """The stream has an entry as it is known: under this subject, in the event."""
        hole = self._holes.pop(key, None)
        if hole is None or not hole.wrote:
            return
        self._paced.record(hole.code, partial(self._tell, hole.code, subject))

    def forget(self, key: Hashable) -> None:
        """An entry is not needed any more."""
        self._holes.pop(key, None)

    def close(self) -> None:
        """Record what was counted."""
        self._paced.close()

    def _tell(self, code: Code, subject: str, count: int) -> None:
        lacked = (
            f"something else was in the place of {self._what}"
            if code is Code.TAMPERED
            else f"{self._what} was missing"
        )
        log.error("the region's stream was repaired (%d times): %s", count, lacked)
        detail = f"{lacked}: {subject}"
        self._emit(EventType.STREAM_REPAIRED, code=code, count=count, detail=detail)
