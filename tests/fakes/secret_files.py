"""A kernel that refuses secret files."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kcm_keymem.secret_pages import memfd_secret


class RefusedFiles:
    """Fails with each of ``codes`` in turn, at the end with the last one; implements CreateFile.

    A code of 0 asks the real kernel.
    """

    def __init__(self, *codes: int) -> None:
        self.asked = 0
        self._codes: Iterator[int] = iter(codes)
        self._code = errno.ENOSYS

    def __call__(self) -> int:
        """Raise ``OSError``."""
        self.asked += 1
        self._code = next(self._codes, self._code)
        if not self._code:
            return memfd_secret()
        raise OSError(self._code, "memfd_secret")
