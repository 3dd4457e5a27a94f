"""Signals that end a command after it has cleaned up its files."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
)
"""Signals that end a process by default. SIGINT raises ``KeyboardInterrupt`` already."""


class Ended(SystemExit):
    """A signal ends the command. The exit code is 128 plus the signal's number, as in shells."""

    def __init__(self, number: int) -> None:
        self.number: Final = 128 + number
        super().__init__(self.number)


@contextmanager
def orderly() -> Iterator[None]:
    """Raise ``Ended`` at a signal; a second signal ends the process at once.

    An ignored signal (``nohup``) stays ignored. Only the main thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        for one in heard:
            signal.signal(one, signal.SIG_DFL)
        raise Ended(number)

    heard = [one for one in ENDING if signal.getsignal(one) is signal.SIG_DFL]
    for one in heard:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in heard:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals during a clean-up, so that it is complete.

    Only the main thread receives signals. In other threads this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGINT, *ENDING)
    before = [signal.signal(one, signal.SIG_IGN) for one in heard]
    try:
        yield
    finally:
        for one, handler in zip(heard, before, strict=True):
            signal.signal(one, handler)
