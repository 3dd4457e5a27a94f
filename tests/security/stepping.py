"""``python -m tests.security.stepping MODULE --config FILE``: an instance whose clock can jump.

It is the instance of ``MODULE``, but SIGUSR1 moves its elapsed clock on by the life of a session
key, so that a search need not wait for it.
"""

from __future__ import annotations

import runpy
import signal
import sys

from kcm_runtime import process
from kcm_runtime.clock import SystemClock
from kcm_sessions.session_keys import KEPT_S


class Stepping(SystemClock):
    """The machine's clocks, and how far the elapsed one has jumped."""

    stepped_s = 0.0

    def elapsed(self) -> float:
        """``CLOCK_BOOTTIME``, and the jumps."""
        return super().elapsed() + Stepping.stepped_s


def _step(*_: object) -> None:
    Stepping.stepped_s += KEPT_S


if __name__ == "__main__":
    module = sys.argv.pop(1)
    signal.signal(signal.SIGUSR1, _step)
    process.SystemClock = Stepping  # type: ignore[misc]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
