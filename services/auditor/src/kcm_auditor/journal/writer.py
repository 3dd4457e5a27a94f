"""Writing: entries are chained when they are decided, and flushed in groups.

``submit`` is synchronous. An entry gets its number and hash at once, in the order of the decisions,
so that nothing can come between a decision and its entry. A task then writes all accumulated
entries with one flush to the disk, and completes the futures of their callers.

A write or flush that failed is never repeated on the same file: after a failed flush the kernel may
report success wrongly. The journal is closed and the Auditor ends; the stream still has what was
not recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.files.atomic import sync_directory
from kcm_runtime.logs import fields
from kcm_runtime.tasks import TaskSet

from kcm_auditor.journal.format import START, Content, Entry, Positions, write
from kcm_auditor.journal.segments import (
    Cut,
    JournalError,
    cut_unfinished,
    entries_of,
    first_of,
    last_entry,
    list_segments,
    path_of,
)

log = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes after which a new segment begins: what a start reads, and what an archive copies."""

_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Point:
    """A position in the chain: an entry and its hash."""

    seq: int
    head: bytes


@dataclass(slots=True)
class _Group:
    """Data for one segment. ``first`` is the entry with which a new segment begins, if it does."""

    first: int | None
    data: bytearray


class Journal:
    """One directory with one writer. ``positions`` returns all present positions."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        positions: Callable[[], Positions],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory: Final = directory
        self._clock: Final = clock
        self._positions: Final = positions
        self._segment_bytes: Final = segment_bytes
        self._point = Point(0, START)
        self._size = 0
        self._segment = 0
        self._fd = -1
        self._lock = -1
        self._groups: list[_Group] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._wake: Final = asyncio.Event()
        self._closing = False
        self._tasks: Final = TaskSet()
        self.failed: Final = asyncio.Event()
        """Set when nothing can be written any more."""

    @property
    def point(self) -> Point:
        """The last entry that was submitted."""
        return self._point

    @property
    def segment(self) -> int:
        """The number of the first entry of the current segment."""
        return self._segment

    def open(self, restore: Callable[[Entry], None]) -> list[Cut]:
        """Lock, repair and read the last segment, and begin to write after it.

        ``restore`` gets every entry of the last segment, the first of which has all positions.
        Returns the cuts, which the caller records. Raises ``JournalError`` if another Auditor uses
        the directory or the journal is damaged.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            cuts = self._recover(restore)
        except OSError as error:
            raise JournalError(f"{self._directory}: {error.strerror}") from None
        self._tasks.spawn(self._write_groups())
        if self._point.seq == 0:
            self._roll()
        return cuts

    def submit(self, contents: Sequence[Content]) -> asyncio.Future[None]:
        """Append entries in this order; the future is done when they are on the disk.

        Raises ``JournalError``, or sets it, if they cannot be written.
        """
        if self.failed.is_set() or self._closing:
            raise JournalError("the journal is closed")
        for content in contents:
            self._append(content)
        if self._size >= self._segment_bytes:
            self._roll()
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        return future

    async def close(self) -> None:
        """Write what was submitted, and release the directory."""
        if self._tasks and not self.failed.is_set():
            with contextlib.suppress(JournalError):
                await self.submit([])
        self._closing = True
        self._tasks.close()
        await self._tasks.join()
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _append(self, content: Content) -> None:
        line, digest = write(
            Entry(
                seq=self._point.seq + 1,
                previous=self._point.head.hex(),
                time_ms=self._clock.unix_ms(),
                content=content,
            )
        )
        self._point = Point(self._point.seq + 1, digest)
        self._size += len(line)
        if not self._groups:
            self._groups.append(_Group(None, bytearray()))
        self._groups[-1].data += line

    def _roll(self) -> None:
        """Begin a segment with all positions, as of what was submitted so far."""
        self._segment = self._point.seq + 1
        self._groups.append(_Group(self._segment, bytearray()))
        self._size = 0
        self._append(self._positions())
        self._wake.set()

    async def _write_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            groups, self._groups = self._groups, []
            waiting, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._flush, groups)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing more is written
                self.failed.set()
                log.critical(
                    "the journal cannot be written: %s",
                    describe(error),
                    extra=fields(path=str(self._directory)),
                )
                for future in (*waiting, *self._waiting):
                    if not future.done():
                        future.set_exception(JournalError("the journal cannot be written"))
                return
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _flush(self, groups: list[_Group]) -> None:
        """Write and flush groups, in a thread; no other code touches the file."""
        for group in groups:
            if group.first is not None:
                self._begin_file(group.first)
            view = memoryview(group.data)
            while view:
                view = view[os.write(self._fd, view) :]
        if groups:
            os.fsync(self._fd)

    def _begin_file(self, first: int) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path_of(self._directory, first), flags, 0o600)
        sync_directory(self._directory)

    def _take_lock(self) -> None:
        self._lock = os.open(
            self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{self._directory}: another Auditor uses this directory") from None

    def _recover(self, restore: Callable[[Entry], None]) -> list[Cut]:
        segments = list_segments(self._directory)
        cuts: list[Cut] = []
        while segments:
            if (cut := cut_unfinished(segments[-1])) is not None:
                cuts.append(cut)
            if segments[-1].stat().st_size:
                break
            # A new segment of which nothing was flushed.
            segments.pop().unlink()
            sync_directory(self._directory)
        if not segments:
            return cuts
        self._check_join(segments)
        self._segment = first_of(segments[-1])
        for entry, digest in entries_of(segments[-1]):
            if (entry.seq, entry.previous) != (self._point.seq + 1, self._point.head.hex()):
                raise JournalError(
                    f"{segments[-1].name}: entry {entry.seq} does not follow entry"
                    f" {self._point.seq}"
                )
            self._point = Point(entry.seq, digest)
            restore(entry)
        self._size = segments[-1].stat().st_size
        self._fd = os.open(segments[-1], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return cuts

    def _check_join(self, segments: list[Path]) -> None:
        first = first_of(segments[-1])
        if len(segments) > 1:
            entry, digest = last_entry(segments[-2])
            self._point = Point(entry.seq, digest)
        if self._point.seq + 1 != first:
            raise JournalError(
                f"{segments[-1].name} does not follow entry {self._point.seq} of the segment"
                " before it"
            )
