"""One command at a time changes the files of a deployment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kcm_deployment.errors import DeploymentError

LOCK: Final = ".lock"
"""The file that a command locks while it writes."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; create the directory with mode 0700 if it is missing.

    Raises ``DeploymentError`` if another command holds it, and ``OSError``.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeploymentError(
                f"another command writes to {directory}",
                hint="give the same command again when that one has ended",
            ) from None
        yield
    finally:
        os.close(lock)
