"""The second store of wrapped keys: a directory, independent of the broker.

Every revision of a record is a file of its own, made once and never overwritten, so that making one
is a compare-and-set: ``<noun>.<name>…@<revision, 20 digits>``. Records authenticate themselves; the
directory is trusted with nothing but keeping them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_bus.disk import sync_directory
from kcm_schemas.codes import Code, KcmError

_MARK: Final = "@"
_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was stored."""

    revision: int
    data: bytes


class Directory:
    """Files by key and revision."""

    def __init__(self, path: Path, sync: Callable[[Path], None] = sync_directory) -> None:
        """The directory has to exist: a missing one must not look like an empty one."""
        if not path.is_dir():
            raise FileNotFoundError(f"the second key store {path} does not exist")
        self._path: Final = path
        self._flush: Final = sync
        self._unsynced = False
        """A file was made whose name a power cut may take: the flush after it failed."""

    def create(self, key: str, revision: int, data: bytes) -> None:
        """Store a new revision, on disk when this returns; raises ``conflict`` or ``unavailable``.

        A file appears whole under its name or not at all. It is written under a name that nobody
        else has: under a shared one, a second writer would truncate what the first had linked.
        """
        target = self._path / f"{key}{_MARK}{revision:0{_DIGITS}d}"
        try:
            fd, fresh = tempfile.mkstemp(prefix=f".{target.name}.", dir=self._path)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(fresh, target)
                self._unsynced = True
                self._sync()
            finally:
                Path(fresh).unlink(missing_ok=True)
        except FileExistsError:
            raise KcmError(Code.CONFLICT) from None
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be written") from None

    def latest(self, key: str) -> Stored | None:
        """The highest revision of a record, or ``None``; raises ``unavailable``."""
        try:
            if not self._path.is_dir():
                raise FileNotFoundError  # globbing it would find nothing, as in an empty one
            if self._unsynced:
                self._sync()  # what is found may be believed to stay
            names = sorted(
                path.name for path in self._path.glob(f"{key}{_MARK}{'[0-9]' * _DIGITS}")
            )
            if not names:
                return None
            revision = int(names[-1].rsplit(_MARK, 1)[1])
            return Stored(revision, (self._path / names[-1]).read_bytes())
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be read") from None

    def _sync(self) -> None:
        self._flush(self._path)
        self._unsynced = False
