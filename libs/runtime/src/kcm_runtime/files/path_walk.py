"""The way to a file: every directory and link on its path.

The owner of a link decides where it leads, so a file is trustworthy only if every step of the way
to it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LINKS_MAX: Final = 40
"""Symbolic links on one path, as many as Linux follows."""


def way_to(path: Path) -> Iterator[Path]:
    """Yield every directory and link on the path, and last the file, which need not exist.

    ``path`` is absolute. Raises ``OSError`` for too many links.
    """
    place, left, links = Path("/"), list(path.parts[1:]), 0
    yield place
    while left:
        step = place / left.pop(0)
        if step.name == "..":
            place = place.parent
        elif step.is_symlink():
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            yield step
            target = step.readlink()
            place = Path("/") if target.is_absolute() else place
            left = [part for part in target.parts if part != "/"] + left
        else:
            place = step
            yield place
