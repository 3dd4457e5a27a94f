"""Run a program that ends with its parent process. Run this file by path; never import it.

``python -I -S parent_death.py PARENT_PID PROGRAM [ARGUMENT ...]``

The kernel kills this process when its parent ends in any way, SIGKILL included. The setting
survives ``execv``. If the parent ended before the setting, this process has another parent, and
ends. A separate program is used, not code between fork and exec, because only that is safe in a
process with threads.

Python ignores SIGPIPE and SIGXFSZ, and ignored signals stay ignored after ``execv``. So all signals
are reset to their defaults for the program.

This file imports nothing of the project, so that it costs only a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From ``<sys/prctl.h>``."""
EXIT_ORPHAN: Final = 125
"""The parent had ended, or the kernel refused: no program was run."""
EXIT_NO_PROGRAM: Final = 127
"""The program could not be executed. Shells use the same code."""


def main(parent: int, argv: list[str]) -> int:
    """Bind this process to ``parent`` and execute ``argv``. Returns only after a failure."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        print("parent_death: prctl failed", file=sys.stderr)  # noqa: T201 - goes to the process's log
        return EXIT_ORPHAN
    if os.getppid() != parent:
        return EXIT_ORPHAN
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - intentionally without a shell
    except OSError as error:
        text = f"parent_death: cannot execute {argv[0]}: {error.strerror}"
        print(text, file=sys.stderr)  # noqa: T201 - goes to the process's log
    return EXIT_NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
