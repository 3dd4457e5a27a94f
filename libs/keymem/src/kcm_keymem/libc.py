"""The libc calls on which locked memory rests, with their types."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

PAGE: Final = mmap.PAGESIZE

PROT_NONE: Final = 0
PROT_RW: Final = 3
MAP_SHARED: Final = 0x01
MAP_FIXED: Final = 0x10
MAP_PRIVATE_ANONYMOUS: Final = 0x22
MADV_DONTFORK: Final = 10
MADV_DONTDUMP: Final = 16
PR_GET_DUMPABLE: Final = 3
MAP_FAILED: Final = ctypes.c_void_p(-1).value

libc: Final = ctypes.CDLL(None, use_errno=True)
"""The C library; ``ctypes.get_errno()`` has the error of the last call."""

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
for _call in ("munmap", "mlock"):
    getattr(libc, _call).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
for _call in ("mprotect", "madvise"):
    getattr(libc, _call).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.getrandom.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
libc.getrandom.restype = ctypes.c_ssize_t
libc.syscall.restype = ctypes.c_long


def mapped(size: int, protection: int, flags: int, fd: int = -1, at: int | None = None) -> int:
    """Map ``size`` bytes and return their address; raises ``OSError``."""
    address: int | None = libc.mmap(at, size, protection, flags, fd, 0)
    if address is None or address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    return address


def dumpable() -> bool:
    """Whether the kernel may write a core dump of this process."""
    return bool(libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
