"""Secrets in files, read with ``readv`` straight into the caller's memory, never into ``bytes``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kcm_runtime.files.atomic import placing


class SecretFileError(Exception):
    """A secret's file is missing, has the wrong size, or other users can read it."""


def read_secret(path: str, out: memoryview) -> None:
    """Fill ``out`` from a file of exactly that size that only its owner may read.

    Raises ``SecretFileError``, whose text names the path and the remedy; ``out`` is then zeros.
    """
    try:
        # Without O_NONBLOCK a named pipe would block the start instead of raising an error.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        check_access(path, os.fstat(fd), len(out))
        _fill(path, fd, out)
    except BaseException:
        out[:] = bytes(len(out))
        raise
    finally:
        os.close(fd)


def check_access(path: str, info: os.stat_result, size: int) -> None:
    """Check a secret's file by its ``stat`` result; ``size`` is the number of bytes it must have.

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
    if info.st_size != size:
        raise SecretFileError(f"{path} has {info.st_size} bytes, not {size}")


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
