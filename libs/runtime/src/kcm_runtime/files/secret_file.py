"""Secrets in files that only their owner may read.

A key that decrypts goes with ``readv`` straight into the caller's memory, and never into ``bytes``.
What opens a broker alone is text, and may.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kcm_schemas.codes import Code, KcmError

from kcm_runtime.files.atomic import placing


class SecretFileError(Exception):
    """A secret's file is missing, has the wrong size, or other users can read it."""


def read_secret(path: str, out: memoryview) -> None:
    """Fill ``out`` from a file of exactly that size that only its owner may read.

    Raises ``SecretFileError``, whose text names the path and the remedy; ``out`` is then zeros.
    """
    try:
        with _opened(path) as (fd, size):
            if size != len(out):
                raise SecretFileError(f"{path} has {size} bytes, not {len(out)}")
            _fill(path, fd, out)
    except BaseException:
        out[:] = bytes(len(out))
        raise


def read_private(path: Path, most: int) -> bytes:
    """Return the content of a file that only its owner may read: at most ``most`` bytes.

    It decrypts no key. Raises ``SecretFileError`` if it cannot be read or others can read it, and
    ``too_large``.
    """
    with _opened(str(path)) as (fd, size):
        raw = os.read(fd, most + 1)
        if max(size, len(raw)) > most:
            raise KcmError(Code.TOO_LARGE, f"{path} has more than {most} bytes")
        return raw


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    """Open a file that only its owner may read; yields its descriptor and size in bytes."""
    try:
        # Without O_NONBLOCK a named pipe would block the start instead of raising an error.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        check_access(path, info)
        yield fd, info.st_size
    finally:
        os.close(fd)


def check_access(path: str, info: os.stat_result) -> None:
    """Check a secret's file by its ``stat`` result.

    Raises ``SecretFileError`` if a user other than root and this one could read or write it.
    """
    if not stat.S_ISREG(info.st_mode):
        raise SecretFileError(f"{path} is not a file")
    if info.st_uid not in {0, os.geteuid()}:
        raise SecretFileError(f"{path} belongs to another user")
        # systemd gives a credential to a service by an access list on a file of root's; its mask
        # appears as the group's permission to read (mode 0440, root:root).
    allowed = 0o040 if info.st_uid == info.st_gid == 0 else 0
    if stat.S_IMODE(info.st_mode) & 0o077 & ~allowed:
        raise SecretFileError(f"{path} can be read by others; chmod 600 it")


def _fill(path: str, fd: int, out: memoryview) -> None:
    done = 0
    while done < len(out):
        got = os.readv(fd, [out[done:]])
        if not got:
            raise SecretFileError(f"{path} became shorter while it was read")
        done += got


def write_secret(path: str, view: memoryview) -> None:
    """Write a new file of mode 600 from memory; file and name are durable when this returns.

    It is complete or absent, however the process ends. Raises ``FileExistsError`` instead of
    replacing a file.
    """
    with placing(Path(path), replace=False) as file:
        # Not through the file's buffer, which would keep a copy.
        if os.writev(file.fileno(), [view]) != len(view):
            raise SecretFileError(f"{path} could not be written completely")


def read_password(path: Path) -> str:
    """Read a broker's password, which may be text: it decrypts no key.

    Raises ``SecretFileError``.
    """
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"{path} is not UTF-8 text") from None
