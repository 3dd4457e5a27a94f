"""Where output goes: a file that is there as a whole or not at all, or stdout as it comes.

Until everything is good an older file of that name stays, and nothing of the new one can be seen.
What is decrypted is readable by its owner alone.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kcm.cli.exits import Exit
from kcm.cli.problems import Problem

STDOUT: Final = "-"
"""The name that means stdout."""

_OF_THE_MACHINE: Final = {
    errno.ENOSPC: "free some space, or name a file elsewhere with -o FILE",
    errno.EDQUOT: "free some of your space, or name a file elsewhere with -o FILE",
    errno.EFBIG: "files there may not be so large; name another place with -o FILE",
    errno.EPIPE: "whoever read the output ended before all of it was there",
    errno.EIO: "the disk or its file system has a fault",
    errno.ENFILE: "too many files are open",
    errno.EMFILE: "too many files are open",
}
"""Faults that another name is no remedy for, and what is; all others are wrong usage."""


@dataclass(frozen=True, slots=True)
class Sink:
    """Takes bytes; its faults are ``Problem`` and say which file it is."""

    name: str
    file: BinaryIO
    at_once: bool
    """Whether what is written is seen at once: stdout, a pipe or a device."""

    def write(self, data: bytes) -> None:
        """Write all of these bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise cannot_write(self.name, error) from None

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write one after the other."""
        for part in parts:
            self.write(part)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it, whose terminal could be steered."""
        return self.name == "stdout" and self.file.isatty()


@contextmanager
def sink(name: str, *, private: bool) -> Iterator[Sink]:
    """A place to write to; the file ``name`` appears when the block ends without an error."""
    if name == STDOUT:
        yield from _stdout()
        return
    path = Path(os.path.realpath(name))
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - these never raise
        yield from _device(name, path)
        return
    from kcm_crypto.placing import placing

    from kcm.cli.endings import orderly

    with orderly():
        try:
            with placing(path, private=private) as file:
                yield Sink(name, file, at_once=False)
        except OSError as error:
            raise cannot_write(name, error) from None


def _device(name: str, path: Path) -> Iterator[Sink]:
    try:
        device = path.open("wb", buffering=0)
    except OSError as error:
        raise cannot_write(name, error) from None
    with device:
        yield Sink(name, device, at_once=True)


def _stdout() -> Iterator[Sink]:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Problem(Exit.USAGE, "usage", "cannot write stdout: it is closed", "name -o FILE")
    file = sys.stdout.buffer
    try:
        yield Sink("stdout", file, at_once=True)
        try:
            file.flush()
        except OSError as error:
            raise cannot_write("stdout", error) from None
    except Problem:
        _give_up(file)
        raise


def _give_up(file: BinaryIO) -> None:
    """Flush what is good; where that is not possible, let nobody try it again at the end."""
    try:
        file.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
            file.flush()


def cannot_write(name: str, error: OSError) -> Problem:
    """Say which file it is, and whether another name would help."""
    text = f"cannot write {name}: {error.strerror}"
    hint = _OF_THE_MACHINE.get(error.errno or 0)
    if hint is not None:
        return Problem(Exit.FAULT, "io", text, hint)
    hint = "name a file in a directory that is there and that you may write to"
    return Problem(Exit.USAGE, "usage", text, hint)


def refuse_terminal(name: str) -> None:
    """Raise when binary output would go to a terminal."""
    if name == STDOUT and sys.stdout is not None and sys.stdout.isatty():
        raise Problem(
            Exit.USAGE,
            "usage",
            "the output is binary and would go to the terminal",
            "name a file with -o FILE, or redirect the output",
        )
