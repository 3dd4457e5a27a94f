"""The Core's handle on a server of an unsealer with a user of its own, over a Unix socket.

Nothing here starts or ends that unsealer; while it is away, every call is ``unreachable``. A
connection is used only if the socket's file could not have been put there by others, and if the
process that listens belongs to the user that the configuration names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_runtime.backoff import Backoff

from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.fork_server import BACKOFF_MAX_S, BACKOFF_MIN_S, SEND_BUFFER, writable
from kcm_core.unsealer.isolation import Isolation
from kcm_core.unsealer.kinds import Kind, hello
from kcm_core.unsealer.peer import Unfit, check_file, peer_uid
from kcm_core.unsealer.servers import Servers

ROOT: Final = 0

STARTING_S: Final = 0.1
"""Seconds between two attempts while the service manager listens for an unsealer that starts."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an unsealer listens, and the user that it must belong to."""

    path: Path
    uid: int


class SocketServer:
    """One connection at a time, in one event loop. ``reached`` is called after each check."""

    def __init__(self, address: Address, kind: Kind, reached: Callable[[], None]) -> None:
        self._address: Final = address
        self._kind: Final = kind
        self._reached: Final = reached
        self._connected: socket.socket | None = None
        self._sending: Final = asyncio.Lock()
        self._backoff: Final = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S)
        self._not_before = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Unknown: the process belongs to the service manager."""
        return None

    def answered(self) -> None:
        """Note that the server works: the next attempt waits for the shortest time only."""
        self._backoff.reset()

    async def send(self, parts: Sequence[bytes | memoryview], pipe: int) -> None:
        """Send one request with the write end of its pipe; connects first if need be.

        Waits for room in the socket, and for an unsealer that starts, until it is cancelled. Raises
        `L1Error` (unreachable) if there is no unsealer that may be used.
        """
        async with self._sending:
            while True:
                connected = await self._ensure()
                try:
                    socket.send_fds(connected, parts, [pipe])
                except BlockingIOError:
                    await writable(connected)
                except OSError:
                    self._retire(connected)
                else:
                    return

    def kill(self) -> None:
        """Close the connection of a server that does not answer; its unsealer then ends it."""
        if self._connected is not None:
            self._retire(self._connected)

    async def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        self.kill()

    async def _ensure(self) -> socket.socket:
        while self._connected is None:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._not_before - loop.time()))
            if self._closed:
                raise L1Error(L1State.UNREACHABLE, "the unsealer is closed")
            self._not_before = loop.time() + self._backoff.next_s()
            try:
                self._connected = self._connect()
            except (OSError, Unfit) as error:
                hint = f"the unsealer cannot be used: {_reason(error)}"
                raise L1Error(L1State.UNREACHABLE, hint, cls=type(error).__name__) from None
            if self._connected is None:
                await asyncio.sleep(STARTING_S)
        return self._connected

    def _connect(self) -> socket.socket | None:
        """Return a connection whose peer was checked; nothing while the service manager listens."""
        path, uid = self._address.path, self._address.uid
        check_file(path, frozenset({ROOT, uid, os.geteuid()}))
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connecting.setblocking(False)
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            connecting.connect(str(path))
            found = peer_uid(connecting)
            if found == ROOT != uid:
                connecting.close()
                return None
            if found != uid:
                raise Unfit(f"user {found} listens at {path}, not user {uid}")
            connecting.send(hello(self._kind))
        except BaseException:
            connecting.close()
            raise
        self._reached()
        asyncio.get_running_loop().add_reader(connecting, self._retire, connecting)
        return connecting

    def _retire(self, connected: socket.socket) -> None:
        """Close a connection. A server sends nothing here: what can be read is the end."""
        if self._connected is connected:
            self._connected = None
            asyncio.get_running_loop().remove_reader(connected)
            connected.close()


class SocketServers(Servers):
    """The servers of an unsealer with a user of its own."""

    def __init__(self, address: Address) -> None:
        super().__init__(lambda kind: SocketServer(address, kind, self._was_reached), _FIRST)
        self._seen = False

    def isolation(self, lacks: str) -> Isolation:
        """Return whether an unsealer of the configured user was ever reached."""
        del lacks  # what Landlock would keep from it, its user does not have
        return Isolation("" if self._seen else "the unsealer was not reached yet")

    def _was_reached(self) -> None:
        self._seen = True


_FIRST: Final = Kind("pkcs11")


def _reason(error: OSError | Unfit) -> str:
    return str(error) if isinstance(error, Unfit) else os.strerror(error.errno or 0)
