"""The fork server: receives a request with the write end of a pipe, forks a child, reaps it.

It holds no keys, communicates only with the Core, and serves one kind of root keys. It is
single-threaded, so it may fork at any time; libraries are imported before the fork (once, warm) and
used only after it. It survives a malformed request (answered), a child that crashes (its pipe
closes: the Core reads ``unreachable``), a child that ignores its timer (killed), and more requests
than children (they wait in the socket). When the Core's end closes, it kills the remaining children
and ends.

It also ends when a file was replaced to which its confinement belongs, for example the file that
names the resolvers: the Core starts another one. Its children finish without it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from kcm_core.providers.catalog import warm
from kcm_core.providers.state import L1Error, L1State, safe_text
from kcm_core.providers.uri import L1UriError, parse
from kcm_core.unsealer import worker
from kcm_core.unsealer.confinement.confine import Confinement
from kcm_core.unsealer.frames import (
    REQUEST_MAX,
    FrameError,
    Operation,
    Request,
    Told,
    read_request,
)
from kcm_core.unsealer.kinds import Kind, kind_of

CHILDREN_MAX: Final = 16
"""Children at once: they mostly wait for a network, and each costs a few MiB."""

KILL_GRACE_S: Final = 0.25
"""Seconds that a child may exceed its deadline before the server kills it."""

LOOK_EVERY_S: Final = 2.0
"""Seconds between two looks whether a file was replaced."""

_ENDED: Final = select.POLLHUP | select.POLLRDHUP | select.POLLERR
_FDS_MAX: Final = 1
_FD_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    kill_at: float


class Server:
    """Serves one Core over one socket; ``run`` returns when the Core has closed its end."""

    def __init__(
        self, core: socket.socket, kind: Kind, confinement: Confinement, *, development: bool
    ) -> None:
        self._core = core
        self._kind = kind
        self._confinement = confinement
        self._development = development
        self._children: dict[int, _Child] = {}
        self._buffer = bytearray(REQUEST_MAX + 1)
        self._poll = select.poll()
        self._look_at = 0.0
        self._stale = False
        self._left = False

    def run(self) -> None:
        """Serve until the Core's end of the socket closes, or the confinement is stale."""
        try:
            while self._step():
                if self._left:
                    return
        finally:
            for pidfd in [] if self._left else list(self._children):
                self._kill(pidfd)
                self._reap(pidfd)

    def _step(self) -> bool:
        room = len(self._children) < CHILDREN_MAX
        # Without room, the socket is still polled for its end.
        self._poll.register(self._core, select.POLLRDHUP | (select.POLLIN if room else 0))
        alive = True
        events = self._poll.poll(self._patience_ms())
        if self._is_stale() and all(descriptor != self._core.fileno() for descriptor, _ in events):
            self._left = True
        for descriptor, event in events:
            if descriptor != self._core.fileno():
                self._reap(descriptor)
            elif event & _ENDED:
                alive = False  # requests that the Core left need no answer
            elif event & select.POLLIN:
                alive = self._receive()
        for pidfd, running in list(self._children.items()):
            if time.monotonic() >= running.kill_at:
                self._kill(pidfd)
        return alive

    def _is_stale(self) -> bool:
        if self._confinement.ages and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self._stale = self._confinement.stale
        return self._stale

    def _patience_ms(self) -> int | None:
        times = [running.kill_at for running in self._children.values()]
        if self._confinement.ages:
            times.append(self._look_at)
        if not times:
            return None
        return max(1, round((min(times) - time.monotonic()) * 1000) + 1)

    def _receive(self) -> bool:
        try:
            # An empty datagram looks like the end and is not: the end comes with _ENDED.
            size, ancillary, _, _ = self._core.recvmsg_into(
                [self._buffer], socket.CMSG_SPACE(_FDS_MAX * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        with _received_pipes(ancillary) as pipes:
            if len(pipes) == 1:
                try:
                    self._answer(memoryview(self._buffer)[:size], pipes[0])
                finally:
                    self._buffer[:size] = bytes(size)
        return True

    def _answer(self, packet: memoryview, pipe: int) -> None:
        """Fork a child for a valid request, answer an invalid one here; never raises for it."""
        asked = ""
        try:
            request = read_request(packet)
            asked = request.ask.uri
            if request.operation is Operation.PING:
                told = Told(detail=safe_text("; ".join(self._confinement.lacks)))
                return worker.write(pipe, worker.Answer(L1State.ENABLED, told))
            uri = parse(request.ask.uri)
            if kind_of(uri) != self._kind:
                raise FrameError("the provider")
            warm(uri, development=self._development)
        except FrameError as error:
            return _refuse(pipe, L1Error(L1State.INVALID, f"malformed: {error}", cls="FrameError"))
        except L1UriError as error:
            return _refuse(pipe, L1Error(L1State.UNREACHABLE, str(error), cls="L1UriError"))
        except Exception as error:  # noqa: BLE001 - an SDK's import can fail in any way
            return _refuse(pipe, worker.unknown(error, asked))
        try:
            pid = os.fork()
        except OSError as error:
            return _refuse(pipe, worker.unknown(error, asked))
        if pid == 0:
            worker.run(request, uri, pipe, self._confinement, development=self._development)
        return self._watch(pid, request)

    def _watch(self, pid: int, request: Request) -> None:
        pidfd = os.pidfd_open(pid)
        kill_at = time.monotonic() + request.ask.deadline_ms / 1000 + KILL_GRACE_S
        self._children[pidfd] = _Child(pid, kill_at)
        self._poll.register(pidfd, select.POLLIN)

    def _kill(self, pidfd: int) -> None:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _reap(self, pidfd: int) -> None:
        running = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.waitpid(running.pid, 0)
        os.close(pidfd)


def _refuse(pipe: int, error: L1Error) -> None:
    try:
        worker.write(pipe, worker.failure(error))
    except OSError:
        return  # the Core gave this request up: no reader is left


@contextmanager
def _received_pipes(ancillary: list[tuple[int, int, bytes]]) -> Iterator[list[int]]:
    """Lend the descriptors that came with a packet, and close them: the child has copies."""
    pipes: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            pipes += [
                int.from_bytes(data[at : at + _FD_SIZE], "little")
                for at in range(0, len(data) - _FD_SIZE + 1, _FD_SIZE)
            ]
    try:
        yield pipes
    finally:
        for pipe in pipes:
            os.close(pipe)
