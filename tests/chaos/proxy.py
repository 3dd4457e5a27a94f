"""A TCP proxy on the loopback that can be cut, in ways in which networks fail.

refuse   what is open is reset, what is new is refused: everybody knows at once
swallow  nothing passes any more and nobody is told; what was open is reset at the healing
stall    nothing passes until the healing, then everything does, late
drop     packets are lost (``packets``); without a namespace for that, as swallow
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16


class Mode(StrEnum):
    OPEN = "open"
    REFUSE = "refuse"
    SWALLOW = "swallow"
    STALL = "stall"
    DROP = "drop"


CUTS = (Mode.REFUSE, Mode.SWALLOW, Mode.STALL, Mode.DROP)


class Proxy:
    """Listens on a port of its own and leads to ``target``, as long as its mode lets it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.mode = Mode.OPEN
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def set(self, mode: Mode) -> None:
        """Cut or heal, at once."""
        before, self.mode = self.mode, mode
        if mode is Mode.REFUSE or before is Mode.SWALLOW:
            self._reset()
        if mode is Mode.OPEN:
            self._flows.set()
        else:
            self._flows.clear()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            if self.mode is not Mode.REFUSE:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either end is gone: so is the connection
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._connections.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        there, back = await asyncio.open_connection(LOOPBACK, self.target)
        self._writers.add(back)
        pumps = [
            asyncio.ensure_future(self._pump(reader, back)),
            asyncio.ensure_future(self._pump(there, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()
            writer.transport.abort()
            self._writers.discard(back)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
