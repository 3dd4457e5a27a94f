"""Signals that end a command let it put its files away first."""

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
"""Signals that end a process that does not listen; SIGINT raises ``KeyboardInterrupt`` already."""


class Ended(SystemExit):
    """A signal ends the command; its exit code is the shell's, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        self.number: Final = 128 + number
        super().__init__(self.number)


@contextmanager
def orderly() -> Iterator[None]:
    """Raise ``Ended`` when a signal comes; a second one ends the process at once.

    A signal that is ignored (``nohup``) stays ignored. Only the main thread hears signals.
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
    """A further signal must not leave anything behind: none ends what is being put away.

    Only the main thread hears signals; elsewhere this changes nothing.
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
