"""The logs of started processes: private, bounded, and harmless to a terminal when shown."""

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
"""A log of this many bytes is put aside when its process is started again."""


def open_log(path: Path) -> int:
    """Open a log for appending, mode 0600, never through a link. Returns a descriptor."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(path.name + ".old"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def log_tail(path: Path) -> str:
    """Read the end of a log, safe to print: bounded, and without control characters."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES_MAX))
            text = file.read(TAIL_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return "(there is no log)"
    lines = text.splitlines()[-TAIL_LINES_MAX:]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
