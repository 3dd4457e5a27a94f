"""The three standard streams, which may be closed, full, or of a limited encoding.

If stdout does not accept a text, that is an error (``output.say``). If stderr does not accept one,
it is dropped, because it cannot be reported and must not fail a kill.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from typing import IO

STANDARD: Final = (0, 1, 2)
"""Their descriptors. The next file that a process opens gets the lowest free descriptor."""


def prepare() -> None:
    """Occupy the descriptors of closed streams, and escape characters that a stream lacks."""
    for number in STANDARD:
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
    for stream in (sys.stdout, sys.stderr):
        if not is_closed(stream):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def is_closed(stream: TextIO | None) -> bool:
    """Whether the process was started without this stream."""
    return stream is None or stream.closed


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def tell(text: str) -> None:
    """Write a line to stderr, if it accepts it."""
    if is_closed(sys.stderr):
        return
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)


def give_up(stream: IO[str] | IO[bytes]) -> None:
    """Flush a stream; if that fails, redirect it so that no later flush fails, too."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
