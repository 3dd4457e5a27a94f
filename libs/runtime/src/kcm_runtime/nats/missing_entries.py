"""Entries that are missing from the region's stream although they were seen there.

The instance that wrote a missing entry again records that in the audit stream; instances that found
it rewritten do not. Every client that can write to the stream can cause repairs at any rate, so
they are counted.
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
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Hole:
    code: Code
    """``tampered`` if another entry was in its place, and ``ok`` if none was."""
    wrote: bool = False
    """Whether this instance wrote it again, acknowledged or not."""


class MissingEntries:
    """Entries of one kind that the stream lacks, by their keys."""

    def __init__(self, what: str, emit: Emit) -> None:
        """``what`` names the kind, for example ``a hold``."""
        self._what: Final = what
        self._emit: Final = emit
        self._holes: dict[Hashable, _Hole] = {}
        self._paced: Final = Paced()

    def found(self, key: Hashable, stored: Entry | None) -> None:
        """Note that the stream has ``stored`` in place of an entry."""
        other = stored is not None and bool(stored.data)
        self._holes.setdefault(key, _Hole(Code.TAMPERED if other else Code.OK))

    @contextmanager
    def writing(self, key: Hashable) -> Iterator[None]:
        """Bracket the write of an entry; after a conflict, another instance wrote it."""
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
        """Note that the stream has the right entry; ``subject`` is named in the event."""
        hole = self._holes.pop(key, None)
        if hole is None or not hole.wrote:
            return
        self._paced.record(hole.code, partial(self._tell, hole.code, subject))

    def forget(self, key: Hashable) -> None:
        """Note that an entry is not needed any more."""
        self._holes.pop(key, None)

    def close(self) -> None:
        """Record the repairs that are only counted so far."""
        self._paced.close()

    def _tell(self, code: Code, subject: str, count: int) -> None:
        lacked = (
            f"another entry was in the place of {self._what}"
            if code is Code.TAMPERED
            else f"{self._what} was missing"
        )
        log.error(
            "the region's stream was repaired (%d times): %s",
            count,
            lacked,
            extra=fields(subject=subject, count=count),
        )
        detail = f"{lacked}: {subject}"
        self._emit(EventType.STREAM_REPAIRED, code=code, count=count, detail=detail)
