"""The logs of started processes: private, bounded, and escaped for a terminal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

TAIL_LINES_MAX: Final = 20
"""Lines of a log shown in an error."""
TAIL_BYTES_MAX: Final = 8192
"""Bytes of a log read for an error."""
LOG_BYTES_MAX: Final = 8 << 20
"""At the start of a process, a log of more bytes is renamed."""


def open_log(path: Path) -> int:
    """Open a log for appending, mode 0600, never through a link. Returns a descriptor."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(path.name + ".old"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def log_tail(path: Path, start: int = 0) -> list[str]:
    """Read the last lines of a log, safe to print: bounded, and without control characters.

    Nothing before byte ``start`` is read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES_MAX))
            text = file.read(TAIL_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ["(no log)"]
    lines = text.splitlines()[-TAIL_LINES_MAX:]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]
