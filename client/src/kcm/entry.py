"""The start of the ``kcm`` command: it loads its modules, which takes up to a second.

An interruption in this time ends the process at once, with the text that nothing was done. It
raises no exception, because one in the middle of an import may be lost, or leave a module half
loaded.
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
"""The exit code of ``kcm.exit_codes``, which is not loaded yet."""


def main() -> None:
    """Load the command and run it with this process's arguments."""
    with _nothing_to_undo():
        from kcm_runtime.garbage_collection import collect_seldom

        collect_seldom()
        from kcm.cli.main import begin, run

        begin()
    sys.exit(run(sys.argv[1:]))


@contextmanager
def _nothing_to_undo() -> Iterator[None]:
    """End the process when it is interrupted, unless its parent process ignores SIGINT."""
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
