"""A kernel without ``memfd_secret``, by seccomp: for searches that must see into arenas.

Secret pages are unreadable from outside, so a search of another process's memory would not see what
is left in them. Here the kernel refuses them, to this process and to all that it starts. No
component knows of it, and no setting of theirs leads here.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_MODE_FILTER: Final = 2
_LOAD_NUMBER: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_MEMFD_SECRET: Final = 447


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_memfd_secret() -> None:
    """Make the call fail with ``ENOSYS`` from now on, in child processes, too; for ever."""
    steps = (
        (_LOAD_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, _MEMFD_SECRET),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    )
    raw = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), raw)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
