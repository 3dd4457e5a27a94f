"""Where arenas get their pages: secret ones where the kernel has them, otherwise locked ones."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Final

from kcm_keymem.pages import NOT_LOCKED, Pages, map_anonymous
from kcm_keymem.secret_pages import CreateFile, map_secret, memfd_secret

_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the call that say that something was used up, not that the kernel refuses it."""


class PageSource:
    """Maps pages, and remembers what any of them lacks.

    A kernel that refuses ``memfd_secret`` is asked once. Where only one mapping fails, for example
    because the memlock limit is reached, this one gets other pages.
    """

    def __init__(self, create: CreateFile = memfd_secret) -> None:
        self._create: Final = create
        self._refused = 0
        self._lacks: frozenset[str] | None = None

    @property
    def lacks(self) -> tuple[str, ...]:
        """What some pages of this source lack, in words; maps a page if there were none yet."""
        if self._lacks is None:
            self.map(1).unmap()
        return tuple(sorted(self._lacks or ()))

    def map(self, size: int) -> Pages:
        """Map at least ``size`` bytes, rounded up to whole pages; raises ``MemoryError``."""
        try:
            pages = map_secret(self._file, size)
        except OSError as error:
            locked = map_anonymous(size)
            pages = replace(locked, lacks=(_why(error), *locked.lacks))
        self._lacks = (self._lacks or frozenset()).union(pages.lacks)
        return pages

    def _file(self) -> int:
        """Create a secret file; raises ``OSError``, without asking a kernel that refused before."""
        if self._refused:
            raise OSError(self._refused, "memfd_secret")
        try:
            return self._create()
        except OSError as error:
            if error.errno not in _SCARCE:
                self._refused = error.errno or errno.ENOSYS
            raise


def _why(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "the kernel has no memfd_secret"
    if error.errno == errno.EAGAIN:
        return NOT_LOCKED
    return f"memfd_secret is not possible: {os.strerror(error.errno or 0)}"


SYSTEM: Final = PageSource()
"""The source of this process."""
