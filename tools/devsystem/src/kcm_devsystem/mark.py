"""The mark of a development system's directory, and wiping what bears it.

A directory is taken only when it is new or empty. The mark is the first file that is written into
it, and only what bears it is ever wiped: a home directory or somebody's source tree never does. A
wipe removes what the system made, by name; what somebody else put there stays and is named.
Symbolic links are never followed, and one that stands in the place of a name of ours is not ours.

What lies in the directory says which processes are ended and where keys are written. So it is the
user's own, and nobody else may write to it.
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
"""Its name in the directory."""
MARK_BYTES_MAX: Final = 4096
"""Bytes of a mark; it has some sixty."""
TREES: Final = frozenset(
    {"brokers", "config", "journal", "keys", "keystore", "l1", "log", "run", "secrets", "state"}
)
"""Directories that a system makes and has for itself."""
BESIDE: Final = frozenset({"roster.lasting", "roster.seen"})
"""Directories beside the roster: lists of who is retired, and what clients saw of it."""
FILES: Final = frozenset(
    {"context.toml", "generated.json", "lock", "roster", "shape.json", "state.json"}
)
"""Files that a system makes."""


MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
"""How a space or a line's end stands in a path of ``mountinfo``."""


def claim(directory: Path) -> None:
    """Take a new or empty directory for a development system; nothing changes where it is one.

    Raises ``ForeignDirectoryError`` where anything lies that is not a development system's.
    """
    if has_mark(directory):
        _refuse_others(directory)
        return
    made = not directory.exists()
    if not made and not directory.is_dir():
        raise ForeignDirectoryError(f"{directory} is no directory")
    _refuse_homes(directory)
    if not made:
        _refuse_others(directory)
    if not made and not all(is_rest(entry.name) for entry in directory.iterdir()):
        raise ForeignDirectoryError(
            f"{directory} is not empty and no development system's directory (there is no {MARK} "
            "in it); nothing was changed"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"made_by": "kcm dev", "made_directory": made}) + "\n"
    with suppress(FileExistsError):  # another command took it a moment ago
        place(directory / MARK, text.encode(), replace=False)


def require(directory: Path) -> None:
    """Raise ``NoSystemError`` where nothing is, ``ForeignDirectoryError`` where others live."""
    if has_mark(directory):
        _refuse_others(directory)
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
    """Whether the directory is one that the system made; in doubt it stays."""
    try:
        with mark.open("rb") as file:
            said = json.loads(file.read(MARK_BYTES_MAX))
        return bool(said["made_directory"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_others(directory: Path) -> None:
    """Raise where another user could decide what is done here, and where one owns a part."""
    parts = [MARK, *sorted(FILES | TREES | BESIDE)]
    for path in (directory, *(directory / name for name in parts)):
        with suppress(FileNotFoundError):
            info = path.stat() if path == directory else path.lstat()
            if info.st_uid != os.geteuid():
                raise ForeignDirectoryError(f"{path} belongs to another user; nothing was changed")
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ForeignDirectoryError(
            f"others may write to {directory}: chmod go-w; nothing was changed"
        )


def _mounted_in(directory: Path) -> Iterator[str]:
    """The file systems that are mounted below a directory, bind mounts included (proc(5))."""
    prefix = os.fsencode(directory) + b"/"
    for line in MOUNTS.read_bytes().splitlines():
        place = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])
        if place.startswith(prefix):
            yield os.fsdecode(place)


def _refuse_homes(directory: Path) -> None:
    """An empty home directory, as of a new container, is somebody's all the same."""
    if directory.resolve() in {Path("/"), Path.home().resolve()}:
        raise ForeignDirectoryError(
            f"{directory} is not taken for a development system; name a directory in it"
        )
