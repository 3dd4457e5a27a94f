"""Holds on a Core's own disk: one file for each hold, replaced as a whole.

A region's stream can be lost together with every process that knew its content: one broker, one
Core, one power failure. Holds are few and small, so each Core stores them itself and writes to the
stream what the stream lacks. The same is true of lift pages; what a page ends goes into an archive
next to them. Files contain signed statements and nothing secret; a file that was changed does not
verify.

Nothing waits for the disk: a hold is in force before it is stored, and a thread stores it a few
milliseconds later. A write that fails is repeated until it succeeds, for each hold separately, so
that one bad file does not block another. Until then the hold is *unkept*, and every receipt says
so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import place, sweep, sync_directory
from kcm_runtime.logs import fields

from kcm_killswitch.replica.disk_failure import failure
from kcm_killswitch.replica.hold_archive import Archive, HoldArchive
from kcm_killswitch.replica.hold_store_port import Unkept

log = logging.getLogger(__name__)

CLOSE_S: Final = 2.0
"""Seconds for the last writes when this process ends."""

RETRY_S: Final = 0.25
"""Seconds until a failed write is tried again; doubles at each failure."""

ARCHIVED_AT_ONCE: Final = 1024
"""Statements that are written to the archive in one step."""

RETRY_MAX_S: Final = 5.0
"""Longest wait in seconds between attempts: short, so that writes resume when the disk has room."""

_SUFFIX: Final = ".hold"

Write = Callable[[Path, bytes], None]
"""Makes a file's content durable, entirely or not at all; raises ``OSError``."""

Sync = Callable[[Path], None]
"""Makes a directory's entries durable; raises ``OSError``."""

Results = dict[bytes, Unkept | None]
"""For each hold, why it is not on disk; ``None`` if it is."""

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs blocking disk work outside the event loop, as ``asyncio.to_thread``."""


def read_holds(directory: Path) -> dict[Path, bytes]:
    """Read every file of known holds; creates the directory if missing. Raises ``OSError``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(directory)
    return {path: path.read_bytes() for path in directory.glob(f"*{_SUFFIX}")}


def write_hold(path: Path, statement: bytes) -> None:
    """Replace a file as a whole; many files share one flush of their directory."""
    place(path, statement, sync=None)


def remove_file(path: Path) -> None:
    """Remove a file if it exists. Raises ``OSError``."""
    path.unlink(missing_ok=True)


Read = Callable[[Path], dict[Path, bytes]]
"""The signature of ``read_holds``."""


class FileHoldStore:
    """``hold_store_port.HoldStore`` in a directory."""

    def __init__(
        self,
        directory: Path,
        *,
        write: Write = write_hold,
        sync: Sync = sync_directory,
        read: Read = read_holds,
        remove: Callable[[Path], None] = remove_file,
        archive: Archive | None = None,
        run: Run = asyncio.to_thread,
    ) -> None:
        self._directory: Final = directory
        self._write: Final = write
        self._sync: Final = sync
        self._read: Final = read
        self._run: Final = run
        self._fresh: dict[bytes, bytes] = {}
        """Statements that have not been tried yet."""
        self._failed: dict[bytes, bytes] = {}
        """Statements whose write failed: each is the latest of its hold."""
        self._kept: dict[bytes, bytes] = {}
        """For each hold, the digest of the statement that is on disk."""
        self._unkept: dict[bytes, Unkept] = {}
        self._old: dict[bytes, bytes] = {}
        """Statements of lifted holds that wait for the archive."""
        self._remove: Final = remove
        self._archive: Final = archive or HoldArchive(directory)
        self._stuck = False
        """Whether the last write to the archive failed; it is tried again with the failed files."""
        self._changed: Callable[[bytes], None] = _nobody
        self._task: asyncio.Task[None] | None = None
        self._more: Final = asyncio.Event()
        self._closing = False

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Holds whose write failed, and why."""
        return self._unkept

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Call ``changed`` for each hold that was written, or whose write failed for a new reason.

        The calls come from the event loop.
        """
        self._changed = changed

    def kept(self, hold_id: bytes, statement: bytes) -> bool:
        """Whether exactly this statement is on disk, so that it survives a power failure."""
        known = self._kept.get(hold_id)
        return known == sha256(statement).digest() and hold_id not in self._old

    def recall(self) -> list[bytes]:
        """Every stored statement, in no order; raises ``ConfigError``.

        A Core that cannot read what it knew must not continue as if it knew nothing.
        """
        try:
            found = self._read(self._directory)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self._directory}, which keeps known holds: {error.strerror}"
            ) from None
        for path, statement in found.items():
            with suppress(ValueError):  # not a name that this store makes
                self._kept[bytes.fromhex(path.stem)] = sha256(statement).digest()
        return list(found.values())

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Store the state of a hold soon; a later statement of the same hold replaces this one."""
        self._fresh[hold_id] = statement
        self._failed.pop(hold_id, None)
        self._old.pop(hold_id, None)
        self._begin()

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Move what a page ends to the archive soon; the next start does not read the archive."""
        self._fresh.pop(hold_id, None)
        self._failed.pop(hold_id, None)
        self._unkept.pop(hold_id, None)
        self._old[hold_id] = statement
        self._begin()

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the archived statements of these holds; raises ``OSError``."""
        # Read the queue first: statements move from it into the archive, never back.
        waiting = {one: raw for one in hold_ids if (raw := self._old.get(one)) is not None}
        return self._archive.get(hold_ids) | waiting

    def archiving(self, hold_id: bytes) -> bool:
        """Whether a statement still waits to be written to the archive."""
        return hold_id in self._old

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """Return archived statements of at most ``count`` holds by id, both bounds included.

        Raises ``OSError``.
        """
        return self._archive.between(least, most, count)

    async def close(self) -> None:
        """Wait, for a short time, until the pending statements are stored."""
        self._closing = True
        self._more.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
        if self._unkept:
            log.error(
                "this process ends, and %d holds are not on its disk; each was logged before",
                len(self._unkept),
                extra=fields(path=str(self._directory), count=len(self._unkept)),
            )

    def _begin(self) -> None:
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        wait = RETRY_S
        while True:
            # Holds first, and pages with them: holds that pages end are archived after that.
            if not self._fresh and self._old and not self._stuck:
                self._stuck = not await self._put_away()
                continue
            if not self._fresh:
                if not (self._failed or self._old) or self._closing:
                    return
                self._more.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), wait)
                wait = min(wait * 2, RETRY_MAX_S)
                self._stuck = False
                # New statements go first; failed ones are tried again with them.
                self._fresh, self._failed = self._fresh | self._failed, {}
            batch, self._fresh = self._fresh, {}
            results = await self._run(partial(self._try, batch))
            for hold_id, trouble in results.items():
                self._note(hold_id, batch[hold_id], trouble)
            if not self._unkept and not self._old:
                wait = RETRY_S

    async def _put_away(self) -> bool:
        """Move what pages end into the archive; a failure is tried again."""
        batch = dict(islice(self._old.items(), ARCHIVED_AT_ONCE))
        if not await self._run(partial(self._move, batch)):
            return False
        for hold_id, statement in batch.items():
            if self._old.get(hold_id) == statement:
                del self._old[hold_id]
                self._kept.pop(hold_id, None)
                self._changed(hold_id)
            else:  # it is in force again, and its file is written afterwards
                self._kept.pop(hold_id, None)
        return True

    def _move(self, batch: Mapping[bytes, bytes]) -> bool:
        try:
            self._archive.put(batch)
            for hold_id in batch:
                self._remove(self._directory / f"{hold_id.hex()}{_SUFFIX}")
        except OSError as error:
            log.error(
                "lifted holds are not in the archive yet, it is tried again: %s",
                error.strerror or error,
                extra=fields(path=str(self._directory), count=len(batch)),
            )
            return False
        return True

    def _try(self, batch: Mapping[bytes, bytes]) -> Results:
        """Write each statement separately."""
        results: Results = {}
        for hold_id, statement in batch.items():
            path = self._directory / f"{hold_id.hex()}{_SUFFIX}"
            results[hold_id] = failure(
                partial(self._write, path, statement), hold=hold_id, path=str(path)
            )
        if None in results.values():
            directory = self._directory
            trouble = failure(partial(self._sync, directory), path=str(directory))
            results = {hold_id: known or trouble for hold_id, known in results.items()}
        return results

    def _note(self, hold_id: bytes, statement: bytes, trouble: Unkept | None) -> None:
        before = self._unkept.get(hold_id)
        if trouble is None:
            self._kept[hold_id] = sha256(statement).digest()
            self._unkept.pop(hold_id, None)
            if before is not None:
                log.warning(
                    "a hold whose write failed is on disk now",
                    extra=fields(hold=hold_id, path=str(self._directory)),
                )
            self._changed(hold_id)
            return
        if hold_id not in self._fresh:
            self._failed[hold_id] = statement
        self._unkept[hold_id] = trouble
        if trouble != before:
            log.error(
                "a hold is not on disk yet, the write is repeated: %s",
                trouble.text,
                extra=fields(hold=hold_id, path=str(self._directory), code=trouble.code),
            )
            self._changed(hold_id)


class NullHoldStore:
    """A null ``hold_store_port.HoldStore``, for an instance that unseals nothing without a Core."""

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Return nothing: no write can fail."""
        return {}

    def recall(self) -> list[bytes]:
        """Return nothing: there are no stored statements."""
        return []

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Store nothing."""

    def kept(self, hold_id: bytes, statement: bytes) -> bool:  # noqa: ARG002 - the port's form
        """Return true: nothing relies on this store, so that no hold is unkept."""
        return True

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Archive nothing."""

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:  # noqa: ARG002
        """Return nothing: the archive is empty."""
        return {}

    def archiving(self, hold_id: bytes) -> bool:  # noqa: ARG002 - the port's form
        """Return false: nothing waits for the archive."""
        return False

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:  # noqa: ARG002
        """Return nothing: the archive is empty."""
        return {}

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Ignore the listener: nothing changes."""

    async def close(self) -> None:
        """Return at once: nothing is pending."""


def _nobody(_: bytes) -> None:
    """The listener before ``listen`` is called: ignores the hold."""
