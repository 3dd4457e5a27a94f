"""The Core's handle on the fork server: starts it, sends to it, restarts it after it ended.

It is started with ``exec``: a fresh interpreter, an explicit environment, and one descriptor. A
fork of the Core itself would copy everything that the Core ever held in memory. It calls the keys
of one kind, and has only the variables of that provider.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kcm_runtime.backoff import Backoff

from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.confinement.environment import environment_for
from kcm_core.unsealer.kinds import Kind

BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0
"""Seconds between two starts: doubled while there is no answer in between."""

CLOSE_PATIENCE_S: Final = 2.0
"""Seconds that a server has to end by itself when its socket closes, before it is killed."""

SEND_BUFFER: Final = 512 * 1024
"""Bytes requested for the socket: the largest requests of all slots together. If the kernel grants
less, sending waits."""


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    socket: socket.socket
    pidfd: int
    ended: asyncio.Event


class ForkServer:
    """One fork server at a time, in one event loop."""

    def __init__(
        self, environment: Mapping[str, str], kind: Kind, *, python: str = sys.executable
    ) -> None:
        self._kind = kind
        self._python = python
        self._environment = MappingProxyType(environment_for(kind.scheme, environment))
        self._running: _Running | None = None
        self._sending = asyncio.Lock()
        self._backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S)
        self._not_before = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id of the running server, or ``None``."""
        return None if self._running is None else self._running.process.pid

    def answered(self) -> None:
        """Note that the server works: the next start waits for the shortest time only."""
        self._backoff.reset()

    async def send(self, parts: Sequence[bytes | memoryview], pipe: int) -> None:
        """Send one request with the write end of its pipe; starts a server if none runs.

        Waits for the back-off and for room in the socket until it is cancelled. Its return means
        that the request was sent, not that it was read. Raises `L1Error` (unreachable) if no server
        can be started.
        """
        async with self._sending:
            while True:
                running = await self._ensure()
                try:
                    socket.send_fds(running.socket, parts, [pipe])
                except BlockingIOError:
                    await writable(running.socket)
                except OSError:
                    self._retire(running)
                else:
                    return

    def kill(self) -> None:
        """End a server that does not answer; the next request starts another one."""
        if self._running is not None:
            self._retire(self._running)

    async def close(self) -> None:
        """Close the server's socket, at which it kills its children and ends; wait for its end.

        No server is started afterwards.
        """
        self._closed = True
        running, self._running = self._running, None
        if running is None:
            return
        running.socket.close()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await running.ended.wait()
        except TimeoutError:
            running.process.kill()
            await running.ended.wait()

    async def _ensure(self) -> _Running:
        if self._running is None:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._not_before - loop.time()))
            if self._closed:
                raise L1Error(L1State.UNREACHABLE, "the unsealer is closed")
            self._not_before = loop.time() + self._backoff.next_s()
            try:
                self._running = self._start()
            except OSError as error:
                hint = "the unsealer's server cannot be started"
                raise L1Error(L1State.UNREACHABLE, hint, cls=type(error).__name__) from None
        return self._running

    def _start(self) -> _Running:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            try:
                process = start_server(self._python, theirs, self._kind, self._environment)
            except BaseException:
                ours.close()
                raise
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            ours.close()
            process.kill()
            process.wait()
            raise
        running = _Running(process, ours, pidfd, asyncio.Event())
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit, running)
        return running

    def _retire(self, running: _Running) -> None:
        """Kill a server; ``_on_exit`` reaps it, and nothing is sent to it any more."""
        if self._running is running:
            self._running = None
        running.socket.close()
        if running.process.returncode is None:
            running.process.kill()

    def _on_exit(self, running: _Running) -> None:
        asyncio.get_running_loop().remove_reader(running.pidfd)
        os.close(running.pidfd)
        running.process.wait()
        self._retire(running)
        running.ended.set()


def start_server(
    python: str, core: socket.socket, kind: Kind, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a server of this kind at its end of a socket; raises ``OSError``."""
    return subprocess.Popen(
        # -I: neither PYTHON* variables nor the working directory select code.
        [python, "-I", "-m", "kcm_core.unsealer", str(core.fileno()), kind.scheme, kind.authority],
        pass_fds=[core.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


async def writable(sock: socket.socket) -> None:
    """Wait for room in a socket."""
    loop = asyncio.get_running_loop()
    room: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _set, room)
    try:
        await room
    finally:
        loop.remove_writer(sock)


def _set(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
