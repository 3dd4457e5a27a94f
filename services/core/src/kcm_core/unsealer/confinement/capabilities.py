"""No capability, under any user: root without capabilities owns files, and has no other right."""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from kcm_core.unsealer.confinement import kernel

LAST: Final = 63
"""Bound of the numbers of capabilities: the kernel refuses those that it does not know."""

_VERSION_3: Final = 0x20080522
_AMBIENT_CLEAR_ALL: Final = 4
_WORDS: Final = 6
"""Words of 32 bits: effective, permitted and inheritable, twice."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_all() -> None:
    """Drop every capability, from the bounding set too; raises ``OSError``.

    A process without any makes no call for it, which a service manager may have forbidden.
    """
    held = (ctypes.c_uint32 * _WORDS)()
    kernel.capget(_Header(_VERSION_3, 0), held)
    if not any(held):
        return
    kernel.prctl(kernel.PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    try:
        for number in range(LAST + 1):
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)
    except OSError as error:
        # EINVAL: there are no more. EPERM: not root, so there is nothing to bound.
        if error.errno not in {errno.EINVAL, errno.EPERM}:
            raise
    kernel.capset(_Header(_VERSION_3, 0), (ctypes.c_uint32 * _WORDS)())
