"""The ``kcm`` command's first moments: its modules are loaded, which takes up to a second.

Whoever interrupts it then is told at once that nothing was done. No exception is raised for it:
one that comes in the middle of an import may be lost, or leave half a module.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

TEXT: Final = b"interrupted: nothing was done\n"
INTERRUPTED: Final = 130
"""The exit code, as in ``kcm.exit_codes``, which is not loaded yet."""


def main() -> None:
    """Load the command and run it with this process's arguments."""
    with _nothing_to_undo():
        from kcm.cli.main import begin, run

        begin()
    sys.exit(run(sys.argv[1:]))


@contextmanager
def _nothing_to_undo() -> Iterator[None]:
    """End the process when it is interrupted, unless whoever started it has that ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    with suppress(OSError):
        os.write(2, TEXT)
    os._exit(INTERRUPTED)
