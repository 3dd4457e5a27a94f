"""Where input comes from: a file, or stdin."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from kcm.cli.error_report import Problem, cannot_read
from kcm.cli.streams import is_closed
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN: Final = "-"
"""The name that means stdin."""

INPUT: Final = click.Path(allow_dash=True, readable=False)
"""A file to read from, as a parameter; whether that is possible is seen when it is opened."""


class _Named(io.RawIOBase):
    """Bytes of a file whose faults say which file it is."""

    def __init__(self, inner: io.BufferedIOBase, name: str) -> None:
        self._inner: Final = inner
        self._name: Final = name

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._inner.fileno()

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            return self._inner.readinto1(buffer)
        except OSError as error:
            raise cannot_read(self._name, error) from None


@contextmanager
def source(name: str) -> Iterator[BinaryIO]:
    """A file to read from, or stdin; raises ``Problem``."""
    if name == STDIN:
        if is_closed(sys.stdin):
            raise Problem(Exit.USAGE, "usage", "cannot read stdin: it is closed", "name a file")
        yield io.BufferedReader(_Named(sys.stdin.buffer, "stdin"))  # type: ignore[arg-type]
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below; a `with` would catch too much
    except OSError as error:
        raise cannot_read(name, error) from None
    with file:
        yield io.BufferedReader(_Named(file, name))


def size_of(file: BinaryIO) -> int | None:
    """Bytes of a regular file; none for a pipe."""
    try:
        info = os.fstat(file.fileno())
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None
