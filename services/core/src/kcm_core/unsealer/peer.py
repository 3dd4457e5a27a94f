"""Who is at the other end of a Unix socket, and who may reach its file.

The kernel states the user of the peer (``SO_PEERCRED``): of the process that connected, or of the
one that called ``listen``.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from kcm_runtime.files.path_walk import way_to

_CREDENTIALS: Final = struct.Struct("=iII")


class Unfit(Exception):
    """A socket or a user that must not be used. The text says what to change."""


def peer_uid(connected: socket.socket) -> int:
    """Return the user at the other end; raises ``OSError``."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(found)[1]
    return uid


def other_user(user: str | None, uid: int | None, whose: str) -> int:
    """Return the user id that a configuration names; raises ``Unfit`` for this process's own."""
    if uid is None:
        try:
            uid = pwd.getpwnam(user or "").pw_uid
        except KeyError:
            raise Unfit(f"there is no user {user} on this machine: it is to be {whose}") from None
    if uid == os.geteuid():
        raise Unfit(f"user {uid} is this process's own: {whose} has to be another one")
    return uid


def check_file(path: Path, owners: frozenset[int]) -> None:
    """Raise ``Unfit`` unless the path is a socket that only these users could have put there.

    Its mode must not let all users connect.
    """
    steps = list(way_to(path))
    try:
        for step in steps:
            info = step.lstat()
            if info.st_uid not in owners:
                raise Unfit(f"{step} belongs to user {info.st_uid}")
            last = step == steps[-1]
            loose = info.st_mode & (stat.S_IWOTH if last else stat.S_IWOTH | stat.S_IWGRP)
            sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
            if loose and not sticky and not stat.S_ISLNK(info.st_mode):
                raise Unfit(f"other users may write to {step}")
        kind = steps[-1].lstat().st_mode
    except OSError as error:
        raise Unfit(f"{path}: {os.strerror(error.errno or 0)}") from None
    if not stat.S_ISSOCK(kind):
        raise Unfit(f"{path} is no socket")
