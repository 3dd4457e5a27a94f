"""The servers of one unsealer, one for each kind of root keys, each started at its first use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from kcm_core.unsealer.confinement.environment import first_scheme
from kcm_core.unsealer.fork_server import ForkServer
from kcm_core.unsealer.isolation import Isolation
from kcm_core.unsealer.kinds import Kind

SERVERS_MAX: Final = 8
"""Servers at once: five providers, and private authorities. The least recently used one is ended;
URIs, which operators choose, name authorities."""


class ServerHandle(Protocol):
    """The Core's end of one server. See `ForkServer` for what each method promises."""

    @property
    def pid(self) -> int | None:
        """The server's process id, if it runs and is known."""
        ...

    def answered(self) -> None:
        """Note that the server works."""
        ...

    async def send(self, parts: Sequence[bytes | memoryview], pipe: int) -> None:
        """Send one request with the write end of its pipe; raises `L1Error` (unreachable)."""
        ...

    def kill(self) -> None:
        """End a server that does not answer; the next request gets another one."""
        ...

    async def close(self) -> None:
        """End the server for good."""
        ...


class Servers:
    """The servers by kind, made by ``make``. ``first`` is the kind that a start asks."""

    def __init__(self, make: Callable[[Kind], ServerHandle], first: Kind) -> None:
        self.make: Final = make
        self.first: Final = first
        self._made: OrderedDict[Kind, ServerHandle] = OrderedDict()

    @property
    def pid(self) -> int | None:
        """The process id of the most recently used server."""
        return next((one.pid for one in reversed(self._made.values())), None)

    async def of(self, kind: Kind) -> ServerHandle:
        """Return the server of a kind."""
        if kind not in self._made:
            self._made[kind] = self.make(kind)
        self._made.move_to_end(kind)
        server = self._made[kind]
        if len(self._made) > SERVERS_MAX:
            await self._made.popitem(last=False)[1].close()
        return server

    async def close(self) -> None:
        """End all servers for good."""
        for server in list(self._made.values()):
            await server.close()

    def isolation(self, lacks: str) -> Isolation:
        """Return how the servers are isolated; ``lacks`` is what they reported."""
        return Isolation("; ".join(filter(None, ("the unsealer runs as the Core's user", lacks))))


def fork_servers(environment: Mapping[str, str]) -> Servers:
    """Return servers that are child processes of this one."""
    return Servers(lambda kind: ForkServer(environment, kind), Kind(first_scheme(environment)))
