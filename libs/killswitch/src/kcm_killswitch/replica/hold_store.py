"""Holds on a Core's own disk: one file for each, replaced whole.

A region's stream can be lost with every process that knew what was in it: one broker, one Core, one
power cut. Holds are few and small, so each Core keeps them itself and writes to the stream what it
lacks; pages of lifted holds too, and what a page ends goes into an archive beside them. Files hold
signed statements and nothing secret; what was changed in one is not believed.

Nothing waits for the disk: a hold is in force before it is remembered, and is remembered a few
milliseconds later by a thread. What cannot be written is tried again until it can, each hold by
itself: one bad file keeps no other from the disk. Until then it is *unkept*, which every receipt
says.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

from kcm_runtime.config import ConfigError
from kcm_runtime.error_text import describe
from kcm_runtime.files.atomic import place, sweep, sync_directory

from kcm_killswitch.replica.hold_archive import Archive, HoldArchive
from kcm_killswitch.replica.hold_store_port import Unkept

log = logging.getLogger(__name__)

CLOSE_S: Final = 2.0
"""Seconds that the last files get when this process ends."""

RETRY_S: Final = 0.25
"""Seconds until what could not be written is tried again; doubles."""

ARCHIVED_AT_ONCE: Final = 1024
"""Statements that go into the archive in one step."""

RETRY_MAX_S: Final = 5.0
"""Seconds between two attempts at most: whoever freed the disk does not wait long."""

_SUFFIX: Final = ".hold"

_TEXT: Final = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "quota reached",
    errno.EFBIG: "file too large",
    errno.EROFS: "read only",
    errno.EIO: "disk error",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.ENOENT: "directory missing",
    errno.ENOTDIR: "directory missing",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}

Write = Callable[[Path, bytes], None]
"""Makes a file's content last, whole or not at all; raises ``OSError``."""

Sync = Callable[[Path], None]
"""Makes a directory's entries last; raises ``OSError``."""

Results = dict[bytes, Unkept | None]
"""By hold, why it is not on disk; ``None`` when it is."""

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Does what waits for the disk beside everything else, as ``asyncio.to_thread``."""


def read_holds(directory: Path) -> dict[Path, bytes]:
    """Every file of known holds; makes the directory where it is missing. Raises ``OSError``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(directory)
    return {path: path.read_bytes() for path in directory.glob(f"*{_SUFFIX}")}


def write_hold(path: Path, statement: bytes) -> None:
    """Replace a file whole; many of them share one flush of their directory."""
    place(path, statement, sync=None)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there. Raises ``OSError``."""
    path.unlink(missing_ok=True)


Read = Callable[[Path], dict[Path, bytes]]
"""As ``read_holds``."""


class FileHoldStore:
    """``kcm_runtime.nats.ports.Memory`` in a directory."""

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
        """Statements that were not tried yet."""
        self._failed: dict[bytes, bytes] = {}
        """Statements that could not be written: each is the latest of its hold."""
        self._kept: dict[bytes, bytes] = {}
        """By hold, the digest of the statement that is on disk."""
        self._unkept: dict[bytes, Unkept] = {}
        self._old: dict[bytes, bytes] = {}
        """Statements of lifted holds that go into the archive."""
        self._remove: Final = remove
        self._archive: Final = archive or HoldArchive(directory)
        self._stuck = False
        """Whether the last one to go there did not; it is tried again with what failed."""
        self._changed: Callable[[bytes], None] = _nobody
        self._task: asyncio.Task[None] | None = None
        self._more: Final = asyncio.Event()
        self._closing = False

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Holds that could not be written, and why."""
        return self._unkept

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Be told of every hold that was written, or could not be for another reason than before.

        Called from the event loop.
        """
        self._changed = changed

    def kept(self, hold_id: bytes, statement: bytes) -> bool:
        """Whether exactly this is on disk, so that no power cut takes it."""
        known = self._kept.get(hold_id)
        return known == sha256(statement).digest() and hold_id not in self._old

    def recall(self) -> list[bytes]:
        """Every statement that is kept, in no order; raises ``ConfigError``.

        Whoever cannot read what it knew must not go on as if it knew nothing.
        """
        try:
            found = self._read(self._directory)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self._directory}, which keeps known holds: {error.strerror}"
            ) from None
        for path, statement in found.items():
            with suppress(ValueError):  # a name of somebody else's making
                self._kept[bytes.fromhex(path.stem)] = sha256(statement).digest()
        return list(found.values())

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Keep what is known of a hold, soon; a later statement takes the place of this one."""
        self._fresh[hold_id] = statement
        self._failed.pop(hold_id, None)
        self._old.pop(hold_id, None)
        self._begin()

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Keep what a page ends where nobody reads it at the next start, soon."""
        self._fresh.pop(hold_id, None)
        self._failed.pop(hold_id, None)
        self._unkept.pop(hold_id, None)
        self._old[hold_id] = statement
        self._begin()

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return what is archived of these holds; raises ``OSError``."""
        # What waits is looked at first: meanwhile it may come into the archive, and never leave it.
        waiting = {one: raw for one in hold_ids if (raw := self._old.get(one)) is not None}
        return self._archive.get(hold_ids) | waiting

    def archiving(self, hold_id: bytes) -> bool:
        """Whether a statement is not in the archive yet, into which it was put."""
        return hold_id in self._old

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """Return what is archived of ``count`` holds by id, both bounds among them.

        Raises ``OSError``.
        """
        return self._archive.between(least, most, count)

    async def close(self) -> None:
        """Wait, for a short time, until what was said is kept."""
        self._closing = True
        self._more.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
        if self._unkept:
            log.error("%d holds are not kept on disk", len(self._unkept))

    def _begin(self) -> None:
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        wait = RETRY_S
        while True:
            # Holds first, and pages with them: what they end is put away after they are kept.
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
                # What is new goes first; what failed is tried again with it.
                self._fresh, self._failed = self._fresh | self._failed, {}
            batch, self._fresh = self._fresh, {}
            results = await self._run(partial(self._try, batch))
            for hold_id, trouble in results.items():
                self._note(hold_id, batch[hold_id], trouble)
            if not self._unkept and not self._old:
                wait = RETRY_S

    async def _put_away(self) -> bool:
        """Move what pages end into the archive; where that fails it is tried again."""
        batch = dict(islice(self._old.items(), ARCHIVED_AT_ONCE))
        if not await self._run(partial(self._move, batch)):
            return False
        for hold_id, statement in batch.items():
            if self._old.get(hold_id) == statement:
                del self._old[hold_id]
                self._kept.pop(hold_id, None)
                self._changed(hold_id)
            else:  # it is in force again, and its file is written behind this
                self._kept.pop(hold_id, None)
        return True

    def _move(self, batch: Mapping[bytes, bytes]) -> bool:
        try:
            self._archive.put(batch)
            for hold_id in batch:
                self._remove(self._directory / f"{hold_id.hex()}{_SUFFIX}")
        except OSError as error:
            log.error("lifted holds are not in the archive yet, it is tried again: %s", error)
            return False
        return True

    def _try(self, batch: Mapping[bytes, bytes]) -> Results:
        """Write each by itself."""
        results: Results = {}
        for hold_id, statement in batch.items():
            path = self._directory / f"{hold_id.hex()}{_SUFFIX}"
            results[hold_id] = _trouble(partial(self._write, path, statement))
        if None in results.values():
            trouble = _trouble(partial(self._sync, self._directory))
            results = {hold_id: known or trouble for hold_id, known in results.items()}
        return results

    def _note(self, hold_id: bytes, statement: bytes, trouble: Unkept | None) -> None:
        before = self._unkept.get(hold_id)
        if trouble is None:
            self._kept[hold_id] = sha256(statement).digest()
            self._unkept.pop(hold_id, None)
            if before is not None:
                log.warning("a hold is kept on disk after all")
            self._changed(hold_id)
            return
        if hold_id not in self._fresh:
            self._failed[hold_id] = statement
        self._unkept[hold_id] = trouble
        if trouble != before:
            log.error("a hold is not kept on disk: %s (%s)", trouble.text, trouble.code)
            self._changed(hold_id)


class NullHoldStore:
    """``kcm_runtime.nats.ports.Memory`` of whoever opens nothing without a Core."""

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Nothing."""
        return {}

    def recall(self) -> list[bytes]:
        """Nothing."""
        return []

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Nowhere."""

    def kept(self, hold_id: bytes, statement: bytes) -> bool:  # noqa: ARG002 - the port's form
        """Nobody relies on it: there is nothing that it fails to keep."""
        return True

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Nowhere."""

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:  # noqa: ARG002
        """Nothing."""
        return {}

    def archiving(self, hold_id: bytes) -> bool:  # noqa: ARG002 - the port's form
        """Nothing is put there."""
        return False

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:  # noqa: ARG002
        """Nothing."""
        return {}

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Nothing changes."""

    async def close(self) -> None:
        """At once."""


def _trouble(work: Callable[[], None]) -> Unkept | None:
    """Why some work on the disk failed; ``None`` when it did not."""
    try:
        work()
    except OSError as error:
        number = error.errno or 0
        return Unkept(_TEXT.get(number, "cannot write"), errno.errorcode.get(number, "unknown"))
    except Exception as error:  # noqa: BLE001 - who stops writing forgets every kill from now on
        log.error("writing a hold: %s", describe(error))
        return Unkept("cannot write", "unknown")
    return None


def _nobody(_: bytes) -> None:
    """Nobody listens."""
