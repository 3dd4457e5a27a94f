"""Run a program that dies with whoever started it. Run by path, never imported.

``python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT ...]``

The kernel is asked to kill this process when its parent dies, however that happens, SIGKILL
included; the request outlives ``execv``. A parent that died before the request was made is
noticed because the process then has another parent. Doing this in a program of its own, and not
between fork and exec, is what keeps it safe in a process that has threads.

Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so after ``execv``: the program gets
every signal as it is by default.

It imports nothing of the project, so that a tethered process costs a few milliseconds.
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
"""The parent was gone already, or the kernel refused: nothing was run."""
EXIT_NO_PROGRAM: Final = 127
"""The program could not be executed; what shells answer too."""


def main(parent: int, argv: list[str]) -> int:
    """Tie this process to ``parent`` and become ``argv``. Returns only when it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        print("tether: the kernel refused", file=sys.stderr)  # noqa: T201 - goes to the process's log
        return EXIT_ORPHAN
    if os.getppid() != parent:
        return EXIT_ORPHAN
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell is what we want
    except OSError as error:
        print(f"tether: cannot execute {argv[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - goes to the process's log
    return EXIT_NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
