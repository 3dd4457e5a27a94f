"""A file that appears whole or not at all, and of which nothing is left when it does not.

Until everything is written the file has no name (``O_TMPFILE``): however the process ends, the
system takes it back. Then it gets its name at once. A file that is replaced needs a second name for
a moment, because a link replaces nothing, and some file systems know no files without a name (NFS,
FUSE). Such a name is hidden, and the file is locked while its process lives: whoever places a file
in that directory later removes what a process left that died.

What fails says the path that was meant, and leaves what was there: only where the directory's flush
fails, which comes last, the new file is there already, and a power cut may still take it.
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
"""What a file system says that knows no files without a name."""


Sync = Callable[[Path], None]
"""Makes a directory's names outlive a power cut; raises ``OSError``."""


def sync_directory(path: Path) -> None:
    """See to it that a directory's names outlive a power cut; raises ``OSError`` with its path."""
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
    """Write a file whole, as ``placing``."""
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

    ``private`` gives it mode 600, else the umask decides. Without ``replace`` a file that is there
    is a ``FileExistsError``. ``unnamed`` is for tests of file systems that know no such files.
    Whoever writes many files gives no ``sync``: they then call ``sweep`` before and
    ``sync_directory`` after all of them. Raises ``OSError``.
    """
    hidden = f".kcm-{secrets.token_hex(16)}.part"
    with _naming(path, hidden):
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
    """Remove what processes left in a directory that died: ours, hidden, and locked by nobody."""
    directory = _directory(path)
    try:
        _sweep(directory)
    finally:
        os.close(directory)


def is_rest(name: str) -> bool:
    """Whether a file of this name is one that was being written."""
    return _HIDDEN.fullmatch(name) is not None


@contextmanager
def _naming(path: Path, *hidden: str) -> Iterator[None]:
    """Let an error of the system name the file that was meant: one of a handle names none."""
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
    """Open a file without a name; none where there is no such thing."""
    flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
    try:
        handle = os.open(".", flags, mode, dir_fd=directory)
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
    """Open a file under its hidden name, locked before anybody could take it for a rest."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        handle = os.open(hidden, flags, mode, dir_fd=directory)
        _lock(handle)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(hidden, dir_fd=directory), os.fstat(handle)):
                return handle
        os.close(handle)


def _lock(handle: int) -> None:
    with suppress(OSError):  # a file system without locks: nobody can sweep there either
        fcntl.flock(handle, fcntl.LOCK_EX)


def _name(directory: int, source: str, hidden: str, name: str, *, replace: bool) -> None:
    """Give the file its name, in place of an older one or not."""
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
    """Close a file; what its buffer still holds matters only while everything is good."""
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()
