"""Secrets in files: read with ``readv`` straight into locked memory, never into ``bytes``."""

from __future__ import annotations

import os
import stat


class SecretFileError(Exception):
    """A secret's file is missing, has the wrong size, or others may read it."""


def read_secret(path: str, out: memoryview) -> None:
    """Fill ``out`` from a file of exactly that size that only its owner may read.

    Raises ``SecretFileError``, whose text names the path and the remedy.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise SecretFileError(f"{path} can be read by others; chmod 600 it")
        if info.st_size != len(out):
            raise SecretFileError(f"{path} has {info.st_size} bytes, not {len(out)}")
        done = 0
        while done < len(out):
            got = os.readv(fd, [out[done:]])
            if not got:
                raise SecretFileError(f"{path} was cut short while it was read")
            done += got
    finally:
        os.close(fd)


def write_secret(path: str, view: memoryview) -> None:
    """Write a new file of mode 600 from memory, flushed to disk; refuses to overwrite."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.writev(fd, [view])
        os.fsync(fd)
    finally:
        os.close(fd)
