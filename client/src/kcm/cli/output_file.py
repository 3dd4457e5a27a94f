"""The output of a command: a file that appears as a whole or not at all, or stdout.

An older file of the same name stays until all of the new one is written. Decrypted files get mode
0600. A symbolic link is followed only if it belongs to the user, to root or to the owner of its
directory, because any user can create one in ``/tmp``. A named pipe must belong to the user or to
root, for the same reason.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import click

from kcm.cli.error_report import Problem, cannot_write
from kcm.cli.streams import give_up, is_closed, is_terminal
from kcm.exit_codes import Exit

STDOUT: Final = "-"
"""The name that means stdout."""

HANDLES: Final = frozenset({Path("/dev/fd"), Path("/proc/self/fd")})
"""Directories of the descriptors that the shell has opened, as for ``>(…)``."""

OUTPUT: Final = click.Path(allow_dash=True, readable=False)
"""A file to write, as a parameter. It is checked when it is opened."""


@dataclass(frozen=True, slots=True)
class Sink:
    """An output for bytes. Its errors are ``Problem`` and name the file."""

    name: str
    file: BinaryIO
    at_once: bool
    """Whether written bytes are visible at once: stdout, a pipe or a device."""

    def write(self, data: bytes) -> None:
        """Write all of these bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise cannot_write(self.name, error) from None

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Write one part after another."""
        for part in parts:
            self.write(part)

    @property
    def is_terminal(self) -> bool:
        """Whether the output is a terminal, which control characters could affect."""
        return self.name == "stdout" and self.file.isatty()


@contextmanager
def sink(name: str, *, private: bool) -> Iterator[Sink]:
    """Open an output. The file ``name`` appears when the block ends without an error."""
    if name == STDOUT:
        yield from _stdout()
        return
    if Path(name).parent in HANDLES or name == "/dev/stdout":
        yield from _device(name, Path(name), os.O_WRONLY)
        return
    path = _followed(name)
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - these never raise
        yield from _device(name, path, os.O_WRONLY | os.O_NOFOLLOW)
        return
    from kcm_runtime.files.atomic import placing

    from kcm.cli.signals import orderly

    with orderly():
        try:
            with placing(path, private=private) as file:
                yield Sink(name, file, at_once=False)
        except OSError as error:
            raise cannot_write(name, error) from None


def _followed(name: str) -> Path:
    """Resolve symbolic links; raises ``Problem`` for a link of another user."""
    from kcm_runtime.files.path_walk import way_to

    place = Path("/")
    try:
        for place in way_to(Path.cwd() / name):
            if place.is_symlink() and place.lstat().st_uid not in {
                *trusted_users(),
                place.parent.stat().st_uid,
            }:
                raise _not_mine(name, f"{place} is a link of another user")
    except OSError as error:
        raise cannot_write(name, error) from None
    return place


def _device(name: str, path: Path, flags: int) -> Iterator[Sink]:
    """Open an existing output that is not a regular file. Nothing is created."""
    try:
        _refuse_foreign_pipe(name, path.stat())  # opening it would wait for its reader
        handle = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_write(name, error) from None
    with os.fdopen(handle, "wb", buffering=0) as device:
        _refuse_foreign_pipe(name, os.fstat(handle))
        yield Sink(name, device, at_once=True)


def _refuse_foreign_pipe(name: str, info: os.stat_result) -> None:
    if stat.S_ISFIFO(info.st_mode) and info.st_uid not in trusted_users():
        raise _not_mine(name, "it is a pipe of another user")


def trusted_users() -> set[int]:
    """Return the user ids whose links and pipes are followed: root and this user."""
    return {0, os.geteuid()}


def _not_mine(name: str, why: str) -> Problem:
    text = f"cannot write {name}: {why}"
    return Problem(Exit.USAGE, "usage", text, "name a file in a directory that you own")


def _stdout() -> Iterator[Sink]:
    if is_closed(sys.stdout):
        raise Problem(Exit.USAGE, "usage", "cannot write stdout: it is closed", "name -o FILE")
    file = sys.stdout.buffer
    try:
        yield Sink("stdout", file, at_once=True)
        try:
            file.flush()
        except OSError as error:
            raise cannot_write("stdout", error) from None
    except Problem:
        give_up(file)
        raise


def refuse_terminal(name: str) -> None:
    """Raise ``Problem`` if binary output would go to a terminal."""
    if name == STDOUT and is_terminal(sys.stdout):
        raise Problem(
            Exit.USAGE,
            "usage",
            "the output is binary and would go to the terminal",
            "name a file with -o FILE, or redirect the output",
        )
