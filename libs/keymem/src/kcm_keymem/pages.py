"""Locked memory from the kernel: the few libc calls on which arenas rest.

Pages are private, locked (never swapped), excluded from core dumps and unmapped in a forked child.
``MADV_DONTFORK`` makes a child that touches them fault; ``WIPEONFORK`` would let it encrypt under
zeros. Each mapping has an inaccessible guard page on either side.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from dataclasses import dataclass
from typing import Final

PAGE: Final = mmap.PAGESIZE

_PROT_NONE: Final = 0
_PROT_RW: Final = 3
_MAP_PRIVATE_ANONYMOUS: Final = 0x22
_MADV_DONTFORK: Final = 10
_MADV_DONTDUMP: Final = 16
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
for _call in ("munmap", "mlock"):
    getattr(_libc, _call).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
for _call in ("mprotect", "madvise"):
    getattr(_libc, _call).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.getrandom.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
_libc.getrandom.restype = ctypes.c_ssize_t


@dataclass(frozen=True, slots=True)
class Pages:
    """A mapping: address and size in bytes of its usable part, and the protections it lacks."""

    address: int
    size: int
    lacks: tuple[str, ...]

    def buffer(self) -> ctypes.Array[ctypes.c_ubyte]:
        """The pages as a ctypes array; valid until they are unmapped."""
        return (ctypes.c_ubyte * self.size).from_address(self.address)

    def wipe(self) -> None:
        """Overwrite everything with zeros."""
        ctypes.memset(self.address, 0, self.size)

    def unmap(self) -> None:
        """Return the pages and their guards to the kernel. Any later access faults."""
        _libc.munmap(self.address - PAGE, self.size + 2 * PAGE)


def map_pages(size: int) -> Pages:
    """Map at least ``size`` bytes, rounded up to whole pages; raises ``MemoryError``.

    ``lacks`` names the protections that the kernel refused; a refusal is not fatal.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover
        raise OSError("locked memory needs Linux")
    size = -(-size // PAGE) * PAGE
    base = _libc.mmap(None, size + 2 * PAGE, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if base is None or base == _MAP_FAILED:
        raise MemoryError(f"cannot map {size} bytes for keys")
    address = base + PAGE
    if _libc.mprotect(address, size, _PROT_RW) != 0:
        _libc.munmap(base, size + 2 * PAGE)
        raise MemoryError(f"cannot make {size} bytes for keys writable")
    wanted = {
        "mlock": _libc.mlock(address, size),
        "dontdump": _libc.madvise(address, size, _MADV_DONTDUMP),
        "dontfork": _libc.madvise(address, size, _MADV_DONTFORK),
    }
    return Pages(address, size, tuple(name for name, result in wanted.items() if result != 0))


def fill_random(view: memoryview) -> None:
    """Fill writable memory from the kernel's random number generator, without a ``bytes`` copy."""
    target = (ctypes.c_ubyte * len(view)).from_buffer(view)
    address, done = ctypes.addressof(target), 0
    while done < len(view):
        got = _libc.getrandom(address + done, len(view) - done, 0)
        if got <= 0:
            code = ctypes.get_errno()
            if code == errno.EINTR:
                continue
            raise OSError(code, os.strerror(code))
        done += got


def wipe(view: memoryview) -> None:
    """Overwrite writable memory with zeros."""
    view[:] = bytes(len(view))
