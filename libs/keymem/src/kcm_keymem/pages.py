"""Pages for keys: a mapping between two guard pages, and what is done with its bytes.

``map_anonymous`` makes private pages that are locked (never swapped), excluded from core dumps and
unmapped in a forked child. ``MADV_DONTFORK`` makes a child that touches them fault; ``WIPEONFORK``
would let it encrypt under zeros. ``kcm_keymem.secret_pages`` makes pages that the kernel cannot
read, either; ``kcm_keymem.page_source`` chooses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import Final

from kcm_keymem import libc as c
from kcm_keymem.libc import PAGE, libc

__all__ = ["PAGE", "Pages", "fill_random", "map_anonymous", "wipe"]

NOT_LOCKED: Final = "the memlock limit is too low"
"""What pages lack that may be swapped."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A mapping: address and size in bytes of its usable part, and what it lacks, in words."""

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
        libc.munmap(self.address - PAGE, self.size + 2 * PAGE)


def rounded(size: int) -> int:
    """Return ``size`` rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def map_anonymous(size: int) -> Pages:
    """Map at least ``size`` bytes, rounded up to whole pages; raises ``MemoryError``.

    ``lacks`` names the protections that the kernel refused; a refusal is not fatal.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover
        raise OSError("locked memory needs Linux")
    size = rounded(size)
    try:
        base = c.mapped(size + 2 * PAGE, c.PROT_NONE, c.MAP_PRIVATE_ANONYMOUS)
    except OSError:
        raise MemoryError(f"cannot map {size} bytes for keys") from None
    address = base + PAGE
    if libc.mprotect(address, size, c.PROT_RW) != 0:
        libc.munmap(base, size + 2 * PAGE)
        raise MemoryError(f"cannot make {size} bytes for keys writable")
    wanted = {
        NOT_LOCKED: libc.mlock(address, size),
        "core dumps contain it": libc.madvise(address, size, c.MADV_DONTDUMP),
        "a forked child inherits it": libc.madvise(address, size, c.MADV_DONTFORK),
    }
    return Pages(address, size, tuple(lack for lack, result in wanted.items() if result != 0))


def fill_random(view: memoryview) -> None:
    """Fill writable memory from the kernel's random number generator, without a ``bytes`` copy."""
    target = (ctypes.c_ubyte * len(view)).from_buffer(view)
    address, done = ctypes.addressof(target), 0
    while done < len(view):
        got = libc.getrandom(address + done, len(view) - done, 0)
        if got <= 0:
            code = ctypes.get_errno()
            if code == errno.EINTR:
                continue
            raise OSError(code, os.strerror(code))
        done += got


def wipe(view: memoryview) -> None:
    """Overwrite writable memory with zeros."""
    view[:] = bytes(len(view))
