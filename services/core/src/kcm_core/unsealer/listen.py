"""``python -m kcm_core.unsealer.listen --core-user NAME``: an unsealer with a user of its own.

A service manager makes the socket and starts this program, which has the credentials for the root
keys. It accepts connections of one user, the Core's. The first packet of a connection names a kind
of root keys; then a fork server of this kind gets the connection, with the variables of its
provider. This process reads no request and imports no provider's library.

Exit codes: 0 after SIGTERM, 2 if it was not started as it has to be.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kcm_runtime.hardening import make_undumpable

from kcm_core.unsealer.__main__ import log_our_own
from kcm_core.unsealer.activation import listening_socket
from kcm_core.unsealer.confinement.environment import environment_for
from kcm_core.unsealer.fork_server import start_server
from kcm_core.unsealer.kinds import HELLO_MAX, BadHello, Kind, kind_in
from kcm_core.unsealer.peer import Unfit, other_user, peer_uid

CONNECTIONS_MAX: Final = 16
"""Fork servers at once: twice what a Core asks for, because an old one may still be ending."""

HELLO_S: Final = 1.0
"""Seconds for a connection's first packet, which a Core sends at once."""

END_S: Final = 2.0
"""Seconds that a fork server has to end by itself after its connection closed."""

EXIT_UNFIT: Final = 2

_log: Final = logging.getLogger("kcm_core.unsealer.listen")  # __name__ is another one here


@dataclass(slots=True)
class _Served:
    process: subprocess.Popen[bytes]
    core: socket.socket
    kill_at: float | None = None


class Listener:
    """Starts a fork server for each connection of the Core's user."""

    def __init__(
        self, listening: socket.socket, core_uid: int, environment: Mapping[str, str]
    ) -> None:
        self._listening: Final = listening
        self._core_uid: Final = core_uid
        self._environment: Final = environment
        self._served: dict[int, _Served] = {}
        self._refused: set[int] = set()
        self._poll: Final = select.poll()
        self._poll.register(listening, select.POLLIN)

    @property
    def served(self) -> int:
        """How many connections have a fork server."""
        return len(self._served)

    def run(self) -> None:
        """Serve until an exception, as SIGTERM raises it; then end all fork servers."""
        try:
            while True:
                self.step()
        finally:
            for served in self._served.values():
                served.process.kill()
                served.process.wait()

    def step(self) -> None:
        """Wait for events, and serve them."""
        ending = any(served.kill_at is not None for served in self._served.values())
        for descriptor, _ in self._poll.poll(END_S * 1000 if ending else None):
            if descriptor == self._listening.fileno():
                self._accept()
            elif descriptor in self._served:
                self._reap(descriptor)
            else:
                self._closed(descriptor)
        for served in self._served.values():
            if served.kill_at is not None and time.monotonic() >= served.kill_at:
                served.process.kill()

    def _accept(self) -> None:
        try:
            core, _ = self._listening.accept()
        except OSError as error:
            _log.warning("a connection could not be accepted: %s", type(error).__name__)
            return
        try:
            kind = self._admitted(core)
            if kind is not None:
                self._serve(core, kind)
                return
        except (OSError, BadHello) as error:
            _log.warning("a connection could not be served: %s", type(error).__name__)
        core.close()

    def _admitted(self, core: socket.socket) -> Kind | None:
        uid = peer_uid(core)
        if uid != self._core_uid:
            if uid not in self._refused:
                self._refused.add(uid)
                _log.warning("user %d may not connect: it is not the Core's", uid)
            return None
        if len(self._served) >= CONNECTIONS_MAX:
            _log.warning("the Core has too many connections")
            return None
        core.settimeout(HELLO_S)
        packet = core.recv(HELLO_MAX + 1)
        core.settimeout(None)
        # A Core leaves without a word while it sees the service manager at this end.
        return kind_in(packet) if packet else None

    def _serve(self, core: socket.socket, kind: Kind) -> None:
        environment = environment_for(kind.scheme, self._environment)
        process = start_server(sys.executable, core, kind, environment)
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        self._served[pidfd] = _Served(process, core)
        self._poll.register(pidfd, select.POLLIN)
        self._poll.register(core, select.POLLRDHUP)

    def _closed(self, descriptor: int) -> None:
        """Leave a fork server a moment to end, because its Core has left.

        There is none if the fork server itself has ended, and was reaped before this event.
        """
        for served in self._served.values():
            if served.core.fileno() == descriptor and served.kill_at is None:
                self._poll.unregister(descriptor)
                served.kill_at = time.monotonic() + END_S

    def _reap(self, pidfd: int) -> None:
        served = self._served.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        served.process.wait()
        if served.kill_at is None:
            self._poll.unregister(served.core)
        served.core.close()


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kcm_core.unsealer.listen")
    core = parser.add_mutually_exclusive_group(required=True)
    core.add_argument("--core-user", metavar="NAME", help="the user of the Core")
    core.add_argument("--core-uid", metavar="UID", type=int, help="the same, as a number")
    asked = parser.parse_args()
    log_our_own()
    make_undumpable()
    try:
        uid = other_user(asked.core_user, asked.core_uid, "the Core's user")
        listening = listening_socket(os.environ)
    except Unfit as error:
        _log.error("%s", error)
        return EXIT_UNFIT
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Listener(listening, uid, dict(os.environ)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
