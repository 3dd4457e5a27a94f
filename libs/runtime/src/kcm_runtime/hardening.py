"""Protection of a process before it reads a secret: no core dump, no tracing by the same user."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4

_libc: Final = ctypes.CDLL(None, use_errno=True)


def make_undumpable() -> None:
    """Forbid core dumps, and tracing by processes of the same user; raises ``OSError``.

    The resource limit alone is not enough: a core_pattern that is a pipe ignores it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
