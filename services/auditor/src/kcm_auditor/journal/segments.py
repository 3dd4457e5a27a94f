"""Segments: the files of a journal, and the one repair that is allowed in them.

An interrupted write (a crash, a full disk) leaves a last line without an end. The Auditor had not
signed a head above it, because that happens after the flush; it is cut. All other damage is not
repaired, and the Auditor does not start on it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from kcm_auditor.journal.format import LINE_MAX, BadLine, Entry, read

SUFFIX: Final = ".jsonl"

_DIGITS: Final = 20
_BLOCK: Final = 1 << 20
"""Bytes read at once in the search for the end of the last complete line."""


class JournalError(Exception):
    """The journal is not usable; the text has the remedy and no content."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut from the end of a segment."""

    size: int
    digest: bytes


def path_of(directory: Path, first: int) -> Path:
    """Return the path of the segment that begins with entry ``first``."""
    return directory / f"{first:0{_DIGITS}}{SUFFIX}"


def first_of(path: Path) -> int:
    """Return the number of a segment's first entry, by its name; raises ``JournalError``."""
    if len(path.stem) != _DIGITS or not (path.stem.isascii() and path.stem.isdigit()):
        raise JournalError(f"{path.name} is not the name of a segment")
    return int(path.stem)


def list_segments(directory: Path) -> list[Path]:
    """Return all segments, in order."""
    return sorted(directory.glob(f"*{SUFFIX}"), key=first_of)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield a segment's lines, each bounded: a line that is too long comes in invalid parts."""
    with path.open("rb") as file:
        while line := file.readline(LINE_MAX + 1):
            yield line


def entries_of(path: Path) -> Iterator[tuple[Entry, bytes]]:
    """Yield a segment's entries and hashes; raises ``JournalError`` with the line's number."""
    for number, line in enumerate(lines_of(path), start=1):
        try:
            yield read(line)
        except BadLine as error:
            raise JournalError(f"{path.name}, line {number}: {error}") from None


def cut_unfinished(path: Path) -> Cut | None:
    """Cut a last line without an end, and flush; returns ``None`` if there was none."""
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        keep = _whole(file.fileno(), size)
        if keep == size:
            return None
        file.seek(keep)
        digest = sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        file.truncate(keep)
        os.fsync(file.fileno())
        return Cut(size - keep, digest.digest())


def _whole(fd: int, size: int) -> int:
    """Return the number of bytes up to the end of the last complete line."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def last_entry(path: Path) -> tuple[Entry, bytes]:
    """Return a segment's last entry and hash; raises ``JournalError``."""
    last = deque(lines_of(path), maxlen=1)
    if not last:
        raise JournalError(f"{path.name} is empty")
    try:
        return read(last[0])
    except BadLine as error:
        raise JournalError(f"{path.name}, last line: {error}") from None
