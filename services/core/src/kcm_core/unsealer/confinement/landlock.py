"""Landlock: a process gives up files, listening, signals and tracing, for itself and its children.

Access to files is denied unless a rule allows it, in a file or below a directory. A rule belongs to
the file that the path named when the rule was made. Source: the kernel's
``Documentation/userspace-api/landlock.rst``, for versions 1 to 7 of the interface.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from kcm_core.unsealer.confinement import kernel

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_GET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

_BIND_TCP: Final = 1
_SCOPE_ALL: Final = 3
"""Abstract sockets and signals: neither reaches a process outside."""

NETWORK_ABI: Final = 4
SCOPE_ABI: Final = 6


class Access(IntFlag):
    """What a rule allows; the names are the kernel's, ``LANDLOCK_ACCESS_FS_…``."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Access.READ_FILE | Access.READ_DIR | Access.EXECUTE
WRITE: Final = (
    Access.READ_FILE | Access.READ_DIR | Access.WRITE_FILE | Access.REMOVE_DIR
    | Access.REMOVE_FILE | Access.MAKE_DIR | Access.MAKE_REG | Access.MAKE_SOCK
    | Access.MAKE_FIFO | Access.MAKE_SYM | Access.REFER | Access.TRUNCATE | Access.IOCTL_DEV
)  # fmt: skip
_ALL: Final = READ | WRITE | Access.MAKE_CHAR | Access.MAKE_BLOCK
_OF_A_FILE: Final = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)
_SINCE: Final = {2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}
"""Rights that a version of the interface added to those of version 1."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Port(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


@dataclass(frozen=True, slots=True)
class Grant:
    """A file, or a directory with everything below it, and what is allowed there.

    ``file`` allows nothing if the path is a directory.
    """

    path: str
    access: Access
    file: bool = False


def abi() -> int:
    """Return the version of the kernel's interface; 0 if there is no Landlock."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    except OSError:
        return 0


def lacks(version: int) -> tuple[str, ...]:
    """Return what an older kernel does not restrict, in words for operators."""
    if version == 0:
        return ("no Landlock",)
    found = []
    if version < NETWORK_ABI:
        found.append("Landlock without network")
    if version < SCOPE_ABI:
        found.append("Landlock without signals")
    return tuple(found)


def restrict(version: int, grants: Iterable[Grant] | None, refused: Callable[[str], bool]) -> None:
    """Confine this process; raises ``OSError``. Without ``grants``, files are not restricted.

    ``version`` is at least 1, and the process has no new privileges. A path that does not exist
    allows nothing, and neither does one whose file is at a path that is ``refused``. TCP ports of
    the process's choice are denied; connecting is not.
    """
    handled = _handled(version) if grants is not None else Access(0)
    network = _BIND_TCP if version >= NETWORK_ABI else 0
    scoped = _SCOPE_ALL if version >= SCOPE_ABI else 0
    if not (handled or network or scoped):
        return  # the kernel refuses rules about nothing
    size = 8 if version < NETWORK_ABI else 16 if version < SCOPE_ABI else 24
    attributes = _Ruleset(handled, network, scoped)
    ruleset = kernel.syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for grant in grants or ():
            _allow(ruleset, grant, handled, refused)
        if network:
            # Libraries try whether there is IPv6 by a port of the kernel's choice.
            rule = _Port(_BIND_TCP, 0)
            kernel.syscall(_ADD_RULE, ruleset, _RULE_NET_PORT, ctypes.byref(rule), 0)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> Access:
    missing = Access(0)
    for since, right in _SINCE.items():
        if version < since:
            missing |= right
    return _ALL & ~missing


def _allow(ruleset: int, grant: Grant, handled: Access, refused: Callable[[str], bool]) -> None:
    try:
        place = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it does not exist, or is closed to this user anyway
    try:
        # The opened file is judged, and not the path: a link may be changed in between.
        if refused(os.readlink(f"/proc/self/fd/{place}")):  # noqa: PTH115 - at every call
            return
        rights = grant.access & handled
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_A_FILE
        elif grant.file:
            return
        rule = _Beneath(rights, place)
        kernel.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)
