"""A terminal for programs that behave differently on one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_on_terminal() -> Iterator[list[bytes]]:
    """Let ``sys.stdout`` be a terminal; what it showed is in the list at the end."""
    master, slave = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while data := os.read(master, 65536):
                shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(slave, "w") as terminal, contextlib.redirect_stdout(terminal):
            yield shown
    finally:
        reader.join()
        os.close(master)
