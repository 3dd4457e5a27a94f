"""The three standard streams, which may be closed, full, or of an encoding that lacks a character.

What stdout does not take is an error that says so (``output.say``). What stderr does not take is
dropped: nobody is left to be told, and no kill fails for it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from typing import IO

STANDARD: Final = (0, 1, 2)
"""Of the process: what is closed at its start is where the next file would go that it opens."""


def prepare() -> None:
    """Keep other files out of the places of closed streams, and write every character somehow."""
    for number in STANDARD:
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free place: this one
    for stream in (sys.stdout, sys.stderr):
        if not is_closed(stream):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def is_closed(stream: TextIO | None) -> bool:
    """Whether the process was started without this stream."""
    return stream is None or stream.closed


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person is at the other end."""
    return stream is not None and not stream.closed and stream.isatty()


def tell(text: str) -> None:
    """Write a line beside the result to stderr, if it takes it."""
    if is_closed(sys.stderr):
        return
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)


def give_up(stream: IO[str] | IO[bytes]) -> None:
    """Flush what is good; where that is not possible, let nobody try it again at the end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
