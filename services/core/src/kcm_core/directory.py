"""The second store of wrapped keys: a directory, independent of the broker.

Every revision of a record is a file of its own, made once and never overwritten, so that making one
is a compare-and-set: ``<noun>.<name>…@<revision, 20 digits>``. Records authenticate themselves; the
directory is trusted with nothing but keeping them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_schemas.codes import Code, KcmError

_MARK: Final = "@"


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was stored."""

    revision: int
    data: bytes


class Directory:
    """Files by key and revision."""

    def __init__(self, path: Path) -> None:
        """The directory has to exist: a missing one must not look like an empty one."""
        if not path.is_dir():
            raise FileNotFoundError(f"the second key store {path} does not exist")
        self._path: Final = path

    def create(self, key: str, revision: int, data: bytes) -> None:
        """Store a new revision, on disk when this returns; raises ``conflict`` or ``unavailable``.

        A file appears whole under its name or not at all.
        """
        target = self._path / f"{key}{_MARK}{revision:020d}"
        fresh = self._path / f".{target.name}.{os.getpid()}"
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, target)
            self._sync()
        except FileExistsError:
            raise KcmError(Code.CONFLICT) from None
        except OSError:
            raise KcmError(Code.UNAVAILABLE, "the second key store cannot be written") from None
        finally:
            fresh.unlink(missing_ok=True)

    def latest(self, key: str) -> Stored | None:
        """The highest revision of a record."""
        names = sorted(path.name for path in self._path.glob(f"{key}{_MARK}*"))
        if not names:
            return None
        return Stored(int(names[-1].rsplit(_MARK, 1)[1]), (self._path / names[-1]).read_bytes())

    def _sync(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
