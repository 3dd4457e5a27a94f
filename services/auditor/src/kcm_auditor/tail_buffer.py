"""The end of the journal in memory, for operators' requests: bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from kcm_schemas.auditor import TAIL_BYTES_MAX, TailEntry

from kcm_auditor.journal.format import Batch, Content, Incident

RECENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes that are kept in memory; older entries are in the journal's files."""

ENTRY_OVERHEAD: Final = 512
"""Bytes that are counted for an entry besides its statement and its text."""


class TailBuffer:
    """The latest batches and incidents, in the journal's order."""

    def __init__(self, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max: Final = bytes_max
        self._entries: Final = deque[TailEntry]()
        self._bytes = 0

    @property
    def oldest(self) -> int:
        """The first entry that a page can show; 0 if there is none."""
        return self._entries[0].seq if self._entries else 0

    def add(self, seq: int, time_ms: int, content: Content) -> None:
        """Keep an entry for which operators can ask; other kinds are ignored."""
        match content:
            case Batch():
                incident, detail = "", ""
            case Incident():
                incident, detail = content.incident.value, describe_incident(content)
            case _:
                return
        entry = TailEntry(
            seq=seq,
            time_ms=time_ms,
            region=content.region,
            statement=content.statement,
            incident=incident,
            detail=detail,
        )
        self._entries.append(entry)
        self._bytes += _size(entry)
        while self._bytes > self._bytes_max:
            self._bytes -= _size(self._entries.popleft())

    def page(self, limit: int, before: int) -> list[TailEntry]:
        """Return the last ``limit`` entries before entry ``before`` (0: the end), in order."""
        page: list[TailEntry] = []
        size = 0
        for entry in reversed(self._entries):
            if before and entry.seq >= before:
                continue
            size += _size(entry)
            if len(page) == limit or (page and size > TAIL_BYTES_MAX):
                break
            page.append(entry)
        return page[::-1]


def describe_incident(incident: Incident) -> str:
    """Return an incident in one line that is safe to show: names, numbers and fixed texts."""
    parts = []
    if incident.emitter:
        parts.append(incident.emitter)
    if incident.incarnation:
        parts.append(f"incarnation {incident.incarnation.hex()}")
    if incident.last:
        parts.append(f"{incident.first} to {incident.last}")
    if incident.detail:
        parts.append(incident.detail)
    return ", ".join(parts)


def _size(entry: TailEntry) -> int:
    return len(entry.statement) + len(entry.detail) + ENTRY_OVERHEAD
