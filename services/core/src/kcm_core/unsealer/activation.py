"""The socket that a service manager made for this process, as systemd passes it.

Source: ``sd_listen_fds(3)``: the variables ``LISTEN_PID`` and ``LISTEN_FDS``, and descriptors from
3 on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kcm_core.unsealer.peer import Unfit, check_file

FIRST_DESCRIPTOR: Final = 3

BACKLOG: Final = 16
"""Connections that wait to be accepted: as many as there are servers."""


def listening_socket(environment: Mapping[str, str]) -> socket.socket:
    """Return the one socket that was passed, listening in the name of this process.

    Raises ``Unfit`` if there is none, if it is no Unix socket for packets, or if its file is open
    to others.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        raise Unfit("no socket was passed: start kcm-unsealer@.socket, not this program")
    try:
        passed = socket.socket(fileno=FIRST_DESCRIPTOR)
    except OSError:
        raise Unfit("the descriptor that was passed is no socket") from None
    kind = (passed.family, passed.type, passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if kind != (socket.AF_UNIX, socket.SOCK_SEQPACKET, 1):
        raise Unfit("the socket is not a listening Unix socket: use ListenSequentialPacket=")
    passed.set_inheritable(False)
    path = passed.getsockname()
    if not isinstance(path, str) or not path.startswith("/"):
        raise Unfit("the socket has no file: an abstract name is open to every user")
    check_file(Path(path), frozenset({0, os.geteuid()}))
    # A peer sees the user of the last call of listen, which was the service manager's until now.
    passed.listen(BACKLOG)
    return passed
