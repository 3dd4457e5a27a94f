"""Seccomp: system calls that no provider's library needs fail with EPERM.

These are the calls that read another process, that change the machine or this process's view of
it, and large parts of the kernel with a history of defects. The filter is a program of classic BPF,
which the kernel runs at every system call. Source: the kernel's
``Documentation/userspace-api/seccomp_filter.rst``.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys
from typing import Final

from kcm_core.unsealer.confinement import kernel
from kcm_core.unsealer.confinement.syscall_numbers import ARCHITECTURES, Architecture

FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Kinds of sockets that a library may make: names are looked up with the last one."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets of 32 bits in ``struct seccomp_data``; of arguments, the low half."""

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_FAIL: Final = 0x00050000
_MODE_FILTER: Final = 2
_X32: Final = 0x40000000
"""The bit of system calls of a second interface on x86-64, which would pass by the numbers."""

_NEW_NAMESPACES: Final = 0x7E020080
"""The flags of ``clone`` that make a namespace."""

_JUMP_MAX: Final = 255

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class Unsupported(Exception):
    """There is no table of system calls for this machine's processor."""


def install(*, may_execute: bool) -> None:
    """Filter this process's system calls from now on; raises ``OSError`` or ``Unsupported``.

    ``may_execute`` leaves ``execve`` alone. The process has one thread and no new privileges.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None or sys.maxsize < 2**32:
        raise Unsupported
    code = packed(program(architecture, may_execute=may_execute))
    filtering = _Program(len(code) // 8, code)
    kernel.prctl(kernel.PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filtering))


def program(architecture: Architecture, *, may_execute: bool) -> list[_Instruction]:
    """Return the instructions: (operation, jump if true, jump if false, value)."""
    numbers = architecture.numbers
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    denied = [*architecture.denied, *([] if may_execute else architecture.executing)]
    for number in denied:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    # The flags of clone3 are in memory, where no filter sees them: the C library takes clone then.
    code += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]
    code += _only_for(numbers["clone"], [(_ANY_BIT, 0, 1, _NEW_NAMESPACES), _refusal()])
    # Limits of another process of this user.
    code += _only_for(numbers["prlimit64"], [(_EQUAL, 1, 0, 0), _refusal()])
    known = [(_EQUAL, len(FAMILIES) - at, 0, int(one)) for at, one in enumerate(FAMILIES)]
    code += _only_for(numbers["socket"], [*known, _refusal()])
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _only_for(number: int, about_first: list[_Instruction]) -> list[_Instruction]:
    """Return instructions about the first argument of one system call; it is allowed after them."""
    body = [(_LOAD, 0, 0, _FIRST_ARGUMENT), *about_first, (_RETURN, 0, 0, _ALLOW)]
    assert len(body) <= _JUMP_MAX
    return [(_EQUAL, 0, len(body), number), *body]


def _refusal() -> _Instruction:
    return (_RETURN, 0, 0, _FAIL | errno.EPERM)


def packed(code: list[_Instruction]) -> bytes:
    """Return the instructions in the kernel's form, ``struct sock_filter``."""
    return b"".join(struct.pack("=HBBI", *one) for one in code)
