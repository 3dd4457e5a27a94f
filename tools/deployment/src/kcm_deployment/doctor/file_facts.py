"""What the file system says about a path; no content of a secret is read."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Above:
    """A directory above a file: its mode and its owner."""

    path: Path
    mode: int
    owner: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A path as it is. ``error`` is why it cannot be looked at, and all else is then empty."""

    path: Path
    error: str = ""
    missing: bool = False
    directory: bool = False
    mode: int = 0
    owner: int = 0
    group: int = 0
    above: tuple[Above, ...] = ()
    writable: bool = False
    free: int = 0
    """Bytes that are free on its disk."""


def read_file_facts(path: Path) -> FileFacts:
    """Look at a path, following links."""
    try:
        info = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return FileFacts(path, os.strerror(error.errno or 0), missing=missing)
    return FileFacts(
        path,
        directory=stat.S_ISDIR(info.st_mode),
        mode=stat.S_IMODE(info.st_mode),
        owner=info.st_uid,
        group=info.st_gid,
        above=tuple(_above(path)),
        writable=os.access(path, os.W_OK),
        free=shutil.disk_usage(path).free,
    )


def _above(path: Path) -> list[Above]:
    found = []
    for one in path.resolve().parents:
        info = one.stat()
        found.append(Above(one, stat.S_IMODE(info.st_mode), info.st_uid))
    return found
