"""Where output goes: a file that is there as a whole or not at all, or stdout as it comes.

A file is written beside its place under another name, made durable, and renamed when everything is
good; until then an older file of that name stays. What is decrypted is readable by its owner alone.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kcm.cli.exits import Exit
from kcm.cli.problems import Problem

STDOUT = "-"
"""The name that means stdout (or stdin)."""


@contextmanager
def sink(name: str, *, private: bool) -> Iterator[BinaryIO]:
    """A place to write to; the file ``name`` appears when the block ends without an error."""
    if name == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with _writable(name):
            device = path.open("wb")
        with device:
            yield device
        return
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with _writable(name):
        handle = os.open(fresh, flags, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise


@contextmanager
def _writable(name: str) -> Iterator[None]:
    """Say of a place where no file can be that it is wrong usage; a full disk is none."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        text = f"cannot write {name}: {error.strerror}"
        hint = "name a file in a directory that is there and that you may write to"
        raise Problem(Exit.USAGE, "usage", text, hint) from None


@contextmanager
def source(name: str) -> Iterator[BinaryIO]:
    """A file to read from, or stdin."""
    if name == STDOUT:
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below; a `with` would catch too much
    except OSError as error:
        raise Problem(Exit.USAGE, "usage", f"cannot read {name}: {error.strerror}") from None
    with file:
        yield file


def size_of(file: BinaryIO) -> int | None:
    """Bytes of a regular file; none for a pipe."""
    try:
        info = os.fstat(file.fileno())
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def refuse_terminal(name: str) -> None:
    """Raise when binary output would go to a terminal."""
    if name == STDOUT and sys.stdout.isatty():
        raise Problem(
            Exit.USAGE,
            "usage",
            "the output is binary and would go to the terminal",
            "name a file with -o FILE, or redirect the output",
        )
