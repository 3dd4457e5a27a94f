"""The mark of a development system's directory, and the removal of such a directory.

A system uses only a new or empty directory. The mark is the first file in it, and only a directory
with a mark is ever wiped, so never a home directory or a source tree. A wipe removes the system's
files by name. Other files stay, and their names are returned. Symbolic links are never followed; a
link with the name of a system's file is not removed.

The files in the directory determine which processes are ended and where keys are written. So the
directory must belong to the user, and other users must not be able to write to it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import is_rest, place

from kcm_devsystem.errors import ForeignDirectoryError, NoSystemError

MARK: Final = "kcm-dev-system.json"
"""The mark's name in the directory."""
MARK_BYTES_MAX: Final = 4096
"""Maximum bytes of a mark; usually about sixty."""
TREES: Final = frozenset(
    {
        "brokers",
        "certificates",
        "config",
        "journal",
        "keys",
        "keystore",
        "l1",
        "log",
        "realms",
        "run",
        "secrets",
        "state",
        "users",
    }
)
"""Directories of a system."""
BESIDE: Final = frozenset({"roster.endorsements", "roster.seen"})
"""Directories beside the roster: endorsements, and the rosters that clients have seen."""
FILES: Final = frozenset(
    {
        "approver.toml",
        "context.toml",
        "generated.json",
        "lock",
        "roster",
        "shape.json",
        "state.json",
    }
)
"""Files of a system."""


MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
"""An escaped space or line end in a path of ``mountinfo``."""


def claim(directory: Path) -> None:
    """Mark a new or empty directory as a development system's; do nothing if it has the mark.

    Raises ``ForeignDirectoryError`` for a directory with other files.
    """
    if has_mark(directory):
        _refuse_others(directory)
        return
    made = not directory.exists()
    if not made and not directory.is_dir():
        raise ForeignDirectoryError(f"{directory} is not a directory")
    _refuse_homes(directory)
    if not made:
        _refuse_others(directory)
    if not made and not all(is_rest(entry.name) for entry in directory.iterdir()):
        raise ForeignDirectoryError(
            f"{directory} is not empty and is not a development system's directory (it has no "
            f"{MARK}); nothing was changed"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"made_by": "kcm dev", "made_directory": made}) + "\n"
    with suppress(FileExistsError):  # a concurrent command has marked it
        place(directory / MARK, text.encode(), replace=False)


def require(directory: Path) -> None:
    """Raise ``NoSystemError`` for an empty directory, ``ForeignDirectoryError`` for another one."""
    if has_mark(directory):
        _refuse_others(directory)
        return
    if directory.is_dir() and any(directory.iterdir()):
        raise ForeignDirectoryError(
            f"{directory} is not a development system's directory (it has no {MARK}); nothing was "
            "changed"
        )
    raise NoSystemError(f"there is no development system in {directory}")


def has_mark(directory: Path) -> bool:
    """Whether the directory has the mark. A symbolic link is not a mark."""
    mark = directory / MARK
    return mark.is_file() and not mark.is_symlink()


def wipe(directory: Path) -> list[str]:
    """Remove the files of a system, the mark last, and return the names of the other files.

    The directory is removed if the system created it and it is empty. An interrupted wipe can be
    repeated. Raises ``NoSystemError`` and ``ForeignDirectoryError``.
    """
    require(directory)
    mounted = sorted(_mounted_in(directory.resolve()))
    if mounted:
        raise ForeignDirectoryError(
            f"a file system is mounted in the system's directory: unmount {mounted[0]}; nothing "
            "was removed"
        )
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
        return entry.name in TREES | BESIDE
    return entry.is_file() and (entry.name in FILES or is_rest(entry.name))


def _made_directory(mark: Path) -> bool:
    """Whether the system created the directory; ``False`` in doubt."""
    try:
        with mark.open("rb") as file:
            said = json.loads(file.read(MARK_BYTES_MAX))
        return bool(said["made_directory"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_others(directory: Path) -> None:
    """Raise ``ForeignDirectoryError`` if another user owns a file or can write to the directory."""
    parts = [MARK, *sorted(FILES | TREES | BESIDE)]
    for path in (directory, *(directory / name for name in parts)):
        with suppress(FileNotFoundError):
            info = path.stat() if path == directory else path.lstat()
            if info.st_uid != os.geteuid():
                raise ForeignDirectoryError(f"{path} belongs to another user; nothing was changed")
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ForeignDirectoryError(
            f"other users can write to {directory}: chmod go-w; nothing was changed"
        )


def _mounted_in(directory: Path) -> Iterator[str]:
    """Yield the mount points below a directory, bind mounts included (proc(5))."""
    prefix = os.fsencode(directory) + b"/"
    for line in MOUNTS.read_bytes().splitlines():
        place = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])
        if place.startswith(prefix):
            yield os.fsdecode(place)


def _refuse_homes(directory: Path) -> None:
    """Raise ``ForeignDirectoryError`` for ``/`` and the home directory, even if they are empty."""
    if directory.resolve() in {Path("/"), Path.home().resolve()}:
        raise ForeignDirectoryError(
            f"{directory} cannot be a development system's directory; name a directory in it"
        )
