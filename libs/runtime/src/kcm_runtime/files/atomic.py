"""Atomic files: complete or absent, and an interrupted write leaves nothing.

A file has no name until it is complete (``O_TMPFILE``): however the process ends, the kernel
reclaims it. Then it gets its name in one step. Replacing a file needs a temporary second name,
because a link replaces nothing; some file systems (NFS, FUSE) do not support unnamed files. The
temporary name is hidden, and the file is locked while its process lives: the next writer in that
directory removes the files of dead processes.

An error names the intended path and leaves the old file. One exception: the flush of the directory
comes last, and if it fails, the new file is in place but may be lost in a power failure.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_HIDDEN: Final = re.compile(r"\.kcm-[0-9a-f]{32}\.part")

_NO_UNNAMED: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}
"""Errors of file systems that do not support unnamed files."""

_HERE: Final = "."
"""The name by which an unnamed file is opened in a directory."""


Sync = Callable[[Path], None]
"""Makes a directory's names durable; raises ``OSError``."""


def sync_directory(path: Path) -> None:
    """Make a directory's names durable; raises ``OSError`` with its path."""
    with _naming(path):
        directory = _directory(path)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def place(
    path: Path,
    content: bytes,
    *,
    private: bool = True,
    replace: bool = True,
    sync: Sync | None = sync_directory,
) -> None:
    """Write a file atomically; parameters and errors are those of ``placing``."""
    with placing(path, private=private, replace=replace, sync=sync) as file:
        file.write(content)


@contextmanager
def placing(
    path: Path,
    *,
    private: bool = True,
    replace: bool = True,
    unnamed: bool = True,
    sync: Sync | None = sync_directory,
) -> Iterator[BinaryIO]:
    """Write a file that is at ``path``, durable, when the block ends without an error.

    ``private`` sets mode 600; otherwise the umask decides. Without ``replace``, an existing file
    raises ``FileExistsError``. ``unnamed`` is for tests of file systems without unnamed files. A
    caller that writes many files passes no ``sync``, and calls ``sweep`` before and
    ``sync_directory`` after all of them. Raises ``OSError``.
    """
    hidden = f".kcm-{secrets.token_hex(16)}.part"
    with _naming(path, _HERE, hidden):
        directory = _directory(path.parent)
        try:
            if sync is not None:
                _sweep(directory)
            try:
                mode = 0o600 if private else 0o666
                handle = _unnamed(directory, mode) if unnamed else None
                source = f"/proc/self/fd/{handle}"
                if handle is None:
                    handle, source = _named(directory, hidden, mode), hidden
                with _closing(os.fdopen(handle, "wb")) as file:
                    yield file
                    file.flush()
                    if private:
                        os.fchmod(handle, 0o600)  # whatever the umask is
                    os.fsync(handle)
                    _name(directory, source, hidden, path.name, replace=replace)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(hidden, dir_fd=directory)
        finally:
            os.close(directory)
    if sync is not None:
        sync(path.parent)


def sweep(path: Path) -> None:
    """Remove the hidden files of dead processes from a directory: those that are not locked."""
    directory = _directory(path)
    try:
        _sweep(directory)
    finally:
        os.close(directory)


def is_rest(name: str) -> bool:
    """Whether a file of this name belongs to an unfinished write."""
    return _HIDDEN.fullmatch(name) is not None


@contextmanager
def _naming(path: Path, *hidden: str) -> Iterator[None]:
    """Make a system error name the intended file: an error of a handle names none."""
    try:
        yield
    except OSError as error:
        parts = {None, path.name, str(path.parent), *hidden}
        if error.filename in parts or error.filename2 is not None:
            error.filename, error.filename2 = str(path), None
        raise


def _directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sweep(directory: int) -> None:
    with os.scandir(directory) as entries:
        left = [entry.name for entry in entries if is_rest(entry.name)]
    for name in left:
        with suppress(OSError):
            _remove(directory, name)


def _remove(directory: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(name, flags, dir_fd=directory)
    try:
        info = os.fstat(handle)
        if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(handle)


def _unnamed(directory: int, mode: int) -> int | None:
    """Open an unnamed file; returns ``None`` if the file system does not support them."""
    flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
    try:
        handle = os.open(_HERE, flags, mode, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise
    if not Path(f"/proc/self/fd/{handle}").exists():  # the only way to give it a name
        os.close(handle)
        return None
    _lock(handle)
    return handle


def _named(directory: int, hidden: str, mode: int) -> int:
    """Open a file under its hidden name, and lock it before another writer could sweep it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        handle = os.open(hidden, flags, mode, dir_fd=directory)
        _lock(handle)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(hidden, dir_fd=directory), os.fstat(handle)):
                return handle
        os.close(handle)


def _lock(handle: int) -> None:
    with suppress(OSError):  # on a file system without locks, no sweep succeeds either
        fcntl.flock(handle, fcntl.LOCK_EX)


def _name(directory: int, source: str, hidden: str, name: str, *, replace: bool) -> None:
    """Give the file its name; an existing file is replaced or kept."""
    if source != hidden or not replace:
        try:
            _link(directory, source, name)
        except FileExistsError:
            if not replace:
                raise
            _link(directory, source, hidden)
        else:
            return
    os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)


def _link(directory: int, source: str, name: str) -> None:
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)


@contextmanager
def _closing(file: BinaryIO) -> Iterator[BinaryIO]:
    """Close a file; an error of its last flush is raised only if the block succeeded."""
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()
