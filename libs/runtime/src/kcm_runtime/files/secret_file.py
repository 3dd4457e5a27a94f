"""Secrets in files: read with ``readv`` straight into the caller's memory, never into ``bytes``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kcm_runtime.files.atomic import placing


class SecretFileError(Exception):
    """A secret's file is missing, has the wrong size, or others may read it."""


def read_secret(path: str, out: memoryview) -> None:
    """Fill ``out`` from a file of exactly that size that only its owner may read.

    Raises ``SecretFileError``, whose text names the path and the remedy; ``out`` is zeros then.
    """
    try:
        # Without O_NONBLOCK a named pipe would hang the start instead of being refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        _check(path, os.fstat(fd), len(out))
        _fill(path, fd, out)
    except BaseException:
        out[:] = bytes(len(out))
        raise
    finally:
        os.close(fd)


def _check(path: str, info: os.stat_result, size: int) -> None:
    """Refuse what somebody else than root and this user could have read or written."""
    if not stat.S_ISREG(info.st_mode):
        raise SecretFileError(f"{path} is not a file")
    if info.st_uid not in {0, os.geteuid()}:
        raise SecretFileError(f"{path} belongs to another user")
    # systemd gives a credential to a service by an access list on a file of root's; its mask shows
    # as the group's right to read (mode 0440, root:root).
    allowed = 0o040 if info.st_uid == info.st_gid == 0 else 0
    if stat.S_IMODE(info.st_mode) & 0o077 & ~allowed:
        raise SecretFileError(f"{path} can be read by others; chmod 600 it")
    if info.st_size != size:
        raise SecretFileError(f"{path} has {info.st_size} bytes, not {size}")


def _fill(path: str, fd: int, out: memoryview) -> None:
    done = 0
    while done < len(out):
        got = os.readv(fd, [out[done:]])
        if not got:
            raise SecretFileError(f"{path} was cut short while it was read")
        done += got


def write_secret(path: str, view: memoryview) -> None:
    """Write a new file of mode 600 from memory; it and its name are on disk when this returns.

    It is there whole or not at all, however the process ends. Refuses to overwrite
    (``FileExistsError``).
    """
    with placing(Path(path), replace=False) as file:
        # Not through the file's buffer, which would keep a copy.
        if os.writev(file.fileno(), [view]) != len(view):
            raise SecretFileError(f"{path} could not be written whole")
