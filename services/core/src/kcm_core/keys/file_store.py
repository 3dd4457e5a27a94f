"""The second store of wrapped keys: a directory, independent of the broker.

Every revision of an entry is a separate file that is created only once, so that its creation is a
compare-and-set: ``<noun>.<name>…/<revision, 20 digits>``. Every entry has a separate directory, so
that a search for its newest revision reads a few names, not those of all tenants. A valid entry is
never overwritten; an invalid file under its name is replaced by it. Entries authenticate
themselves; the directory is trusted only to keep them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place, sync_directory
from kcm_schemas.codes import Code, KcmError

_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it was stored."""

    revision: int
    data: bytes


class FileKeyStore:
    """Files by key and revision."""

    def __init__(self, path: Path, sync: Callable[[Path], None] = sync_directory) -> None:
        """The directory has to exist, because a missing one must not look like an empty one."""
        if not path.is_dir():
            raise FileNotFoundError(f"the second key store {path} does not exist")
        self._path: Final = path
        self._flush: Final = sync
        self._unsynced: Final[set[Path]] = set()
        """Directories whose flush failed: a power failure may remove a name from them."""
        self._adopt()

    def create(self, key: str, revision: int, data: bytes) -> None:
        """Store a new revision, on disk when this returns; raises ``conflict`` or ``unavailable``.

        A file appears under its name completely or not at all.
        """
        target = self._target(key, revision)
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            self._flush(self._path)  # also if another process has just created it
            place(target, data, replace=False, sync=self._named)
        except FileExistsError:
            raise KcmError(Code.CONFLICT) from None
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be written") from None

    def replace(self, key: str, revision: int, data: bytes, damaged: bytes) -> bool:
        """Replace an entry that is ``damaged`` by a good one; ``False`` if it is not there.

        Only for data that was read and is not a valid entry: a valid one is never overwritten. On
        disk when this returns; raises ``unavailable``.
        """
        target = self._target(key, revision)
        try:
            if target.read_bytes() != damaged:
                return False
            place(target, data, sync=self._named)
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be written") from None
        return True

    def latest(self, key: str) -> Stored | None:
        """The highest revision of an entry, or ``None``; raises ``unavailable``."""
        directory = self._path / key
        try:
            if directory in self._unsynced:
                self._sync(directory)  # an entry that was read must be durable
            try:
                names = [one.name for one in directory.iterdir()]
            except FileNotFoundError:
                if not self._path.is_dir():
                    raise  # a missing store is not an empty one
                return None
            revisions = [int(name) for name in names if _is_revision(name)]
            if not revisions:
                return None
            newest = max(revisions)
            return Stored(newest, (directory / f"{newest:0{_DIGITS}d}").read_bytes())
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be read") from None

    def heads(self, prefix: str) -> dict[str, int]:
        """The highest revision of every entry with this key prefix; raises ``unavailable``."""
        found: dict[str, int] = {}
        try:
            for directory in self._path.iterdir():
                if directory.name.startswith(prefix):
                    names = (one.name for one in directory.iterdir())
                    revisions = [int(name) for name in names if _is_revision(name)]
                    if revisions:
                        found[directory.name] = max(revisions)
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be read") from None
        return found

    def _named(self, directory: Path) -> None:
        self._unsynced.add(directory)
        self._sync(directory)

    def _sync(self, directory: Path) -> None:
        self._flush(directory)
        self._unsynced.discard(directory)

    def _target(self, key: str, revision: int) -> Path:
        return self._path / key / f"{revision:0{_DIGITS}d}"

    def _adopt(self) -> None:
        """Adopt files of the earlier layout, ``<key>@<revision>``: an old backup may have some.

        Several Cores may do this at once, and any of them may fail in the middle of it.
        """
        for path in self._path.glob(f"*@{'[0-9]' * _DIGITS}"):
            key, _, revision = path.name.rpartition("@")
            (self._path / key).mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(path, self._path / key / revision)
            self._flush(self._path / key)
            path.unlink(missing_ok=True)


def _is_revision(name: str) -> bool:
    return len(name) == _DIGITS and name.isascii() and name.isdecimal()
