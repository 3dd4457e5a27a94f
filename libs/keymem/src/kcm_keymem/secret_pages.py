"""Pages that the kernel itself cannot read: ``memfd_secret(2)``, Linux 5.14 and later.

The kernel removes them from its own map of the memory. Nothing that reads through the kernel's map
reads them: ``/proc/PID/mem``, ``ptrace``, ``process_vm_readv``, core dumps. What copies to or from
the caller's addresses works as with all memory: ``read``, ``write``, ``recv``, ``getrandom``.

They are shared pages of a file, so a forked child would read *and write* its parent's keys. Without
``MADV_DONTFORK`` they are not used, and a fork waits until it is set.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from kcm_keymem import libc as c
from kcm_keymem.libc import PAGE, libc
from kcm_keymem.pages import Pages, rounded

CreateFile: TypeAlias = Callable[[], int]
"""Returns the descriptor of an empty secret file, closed on exec; raises ``OSError``."""

_MEMFD_SECRET: Final = 447
"""The number of the call, the same on all architectures but Alpha."""

_forks: Final = threading.RLock()
"""Held during a fork, and while there is a file or a mapping that a child would inherit."""

os.register_at_fork(
    before=_forks.acquire, after_in_parent=_forks.release, after_in_child=_forks.release
)


def memfd_secret() -> int:
    """Create a secret file; implements ``CreateFile``."""
    fd: int = libc.syscall(ctypes.c_long(_MEMFD_SECRET), ctypes.c_uint(os.O_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "memfd_secret")
    return fd


def map_secret(create: CreateFile, size: int) -> Pages:
    """Map at least ``size`` bytes of a new secret file, and close it; raises ``OSError``.

    The guards are mapped over the file's first and last page. The other way round, secret pages
    over a reservation, a refusal for the memlock limit leaves a gap between the guards, which
    another thread's mapping may fill before it is returned. Until they are there, the guards count
    against that limit, too.
    """
    with _forks:
        return _map(create(), rounded(size))


def _map(fd: int, size: int) -> Pages:
    whole = size + 2 * PAGE
    try:
        os.ftruncate(fd, whole)
        base = c.mapped(whole, c.PROT_RW, c.MAP_SHARED, fd)
    finally:
        os.close(fd)
    address = base + PAGE
    try:
        for guard in (base, address + size):
            c.mapped(PAGE, c.PROT_NONE, c.MAP_PRIVATE_ANONYMOUS | c.MAP_FIXED, at=guard)
        for advice in (c.MADV_DONTFORK, c.MADV_DONTDUMP):
            if libc.madvise(address, size, advice) != 0:
                raise OSError(ctypes.get_errno(), "madvise")
        _take(address, size)
    except OSError:
        libc.munmap(base, whole)
        raise
    return Pages(address, size, ())


def _take(address: int, size: int) -> None:
    """Make the kernel allocate every page now; raises ``OSError`` if it has none.

    ``mlock`` does not do that for secret pages. At a first use, a page that cannot be allocated
    would end the process with a signal; in a system call it is an error.
    """
    for at in range(address, address + size, PAGE):
        if libc.getrandom(at, 1, 0) != 1:
            raise OSError(ctypes.get_errno(), "getrandom")
        ctypes.memset(at, 0, 1)
