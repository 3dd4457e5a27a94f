"""The mark of a development system's directory, and wiping what bears it.

A directory is taken only when it is new or empty. The mark is the first file that is written into
it, and only what bears it is ever wiped: a home directory or somebody's source tree never does. A
wipe removes what the system made, by name; what somebody else put there stays and is named.
Symbolic links are never followed, and one that stands in the place of a name of ours is not ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

from kcm_crypto.placing import naming

from kcm.dev.errors import ForeignDirectoryError, NoSystemError
from kcm.dev.files import sync

MARK: Final = "kcm-dev-system.json"
"""Its name in the directory."""
MARK_BYTES_MAX: Final = 4096
"""Bytes of a mark; it has some sixty."""
TREES: Final = frozenset(
    {"brokers", "config", "journal", "keys", "keystore", "l1", "log", "run", "secrets", "state"}
)
"""Directories that a system makes and has for itself."""
LISTS: Final = "roster.lasting"
"""The directory beside the roster that has the lists of who is retired."""
FILES: Final = frozenset({"context.toml", "lock", "roster", "roster.new", "state.json"})
"""Files that a system makes."""

_UNFINISHED: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}")
"""What a write leaves beside its file when it is cut off."""


def claim(directory: Path) -> None:
    """Take a new or empty directory for a development system; nothing changes where it is one.

    Raises ``ForeignDirectoryError`` where anything lies that is not a development system's.
    """
    if has_mark(directory):
        return
    made = not directory.exists()
    if not made and not directory.is_dir():
        raise ForeignDirectoryError(f"{directory} is no directory")
    _refuse_homes(directory)
    if not made and any(directory.iterdir()):
        raise ForeignDirectoryError(
            f"{directory} is not empty and no development system's directory (there is no {MARK} "
            "in it); nothing was changed"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with naming(directory / MARK):
        _write(directory, made=made)


def _write(directory: Path, *, made: bool) -> None:
    """Mark a directory; leave no mark that is empty."""
    text = json.dumps({"made_by": "kcm dev", "made_directory": made}) + "\n"
    try:
        handle = os.open(
            directory / MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
        )
    except FileExistsError:
        return  # another command took it a moment ago
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        (directory / MARK).unlink()
        raise
    sync(directory)


def require(directory: Path) -> None:
    """Raise ``NoSystemError`` where nothing is, ``ForeignDirectoryError`` where others live."""
    if has_mark(directory):
        return
    if directory.is_dir() and any(directory.iterdir()):
        raise ForeignDirectoryError(
            f"{directory} is no development system's directory (there is no {MARK} in it); nothing "
            "was changed"
        )
    raise NoSystemError(f"there is no development system in {directory}")


def has_mark(directory: Path) -> bool:
    """Whether the directory is a development system's; a link in the mark's place is no mark."""
    mark = directory / MARK
    return mark.is_file() and not mark.is_symlink()


def wipe(directory: Path) -> list[str]:
    """Remove what a system made, the mark last, and return the names of what is left.

    The directory itself goes where the system made it and nothing is left in it. A wipe that was
    cut off can be done again. Raises ``NoSystemError`` and ``ForeignDirectoryError``.
    """
    require(directory)
    made_directory = _made_directory(directory / MARK)
    for entry in sorted(directory.iterdir()):
        if entry.name != MARK and _is_ours(entry):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    left = sorted(entry.name for entry in directory.iterdir() if entry.name != MARK)
    (directory / MARK).unlink()
    if made_directory and not left:
        directory.rmdir()
    return left


def _is_ours(entry: Path) -> bool:
    if entry.is_symlink():
        return False
    if entry.is_dir():
        # A file system that somebody mounted there is theirs.
        return entry.name in TREES | {LISTS} and not entry.is_mount()
    unfinished = _UNFINISHED.fullmatch(entry.name)
    return entry.is_file() and (unfinished["name"] if unfinished else entry.name) in FILES


def _made_directory(mark: Path) -> bool:
    """Whether the directory is one that the system made; in doubt it stays."""
    try:
        with mark.open("rb") as file:
            said = json.loads(file.read(MARK_BYTES_MAX))
        return bool(said["made_directory"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_homes(directory: Path) -> None:
    """An empty home directory, as of a new container, is somebody's all the same."""
    if directory.resolve() in {Path("/"), Path.home().resolve()}:
        raise ForeignDirectoryError(
            f"{directory} is not taken for a development system; name a directory in it"
        )
