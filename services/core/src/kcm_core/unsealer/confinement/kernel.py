"""The calls of the C library on which the confinement rests, with their types."""

from __future__ import annotations

import ctypes
import os
from typing import Final

PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def prctl(option: int, *arguments: int) -> None:
    """Change a property of this process; raises ``OSError``."""
    padded = (*arguments, *[0] * (4 - len(arguments)))
    if _libc.prctl(option, *padded) != 0:
        raise _failed("prctl")


def syscall(number: int, *arguments: object) -> int:
    """Make a system call and return its result; raises ``OSError``. Integers count 64 bits."""
    typed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *typed)
    if result < 0:
        raise _failed("syscall")
    return result


def capget(header: ctypes.Structure, data: ctypes.Array[ctypes.c_uint32]) -> None:
    """Read the capabilities of this thread; raises ``OSError``."""
    if _libc.capget(ctypes.byref(header), data) != 0:
        raise _failed("capget")


def capset(header: ctypes.Structure, data: ctypes.Array[ctypes.c_uint32]) -> None:
    """Set the capabilities of this thread; raises ``OSError``."""
    if _libc.capset(ctypes.byref(header), data) != 0:
        raise _failed("capset")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
