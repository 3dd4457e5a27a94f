"""A NATS server's first words over TCP: it says a version, takes everybody in, echoes requests."""

import asyncio
import contextlib
import json

from kcm_runtime.config import BusAddress


class FirstWords:
    """Says ``version``; ``drop`` ends every connection."""

    def __init__(self, version):
        self.version = version
        self.port = 0
        self.came = 0
        self._server = None
        self._writers = set()

    @property
    def connections(self):
        """How many connections are open."""
        return len(self._writers)

    async def start(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def drop(self):
        for writer in self._writers:
            writer.close()

    async def close(self):
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def address(self, directory, **settings):
        password = directory / "password"
        password.write_text("x")
        url = f"nats://127.0.0.1:{self.port}"
        return BusAddress(url=url, user="u", password_file=password, **settings)

    async def _talk(self, reader, writer):
        self._writers.add(writer)
        said = {"server_id": "x", "max_payload": 1 << 20, "proto": 1, "headers": True}
        if self.version is not None:
            said["version"] = self.version
        writer.write(b"INFO " + json.dumps(said).encode() + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"CONNECT"):
                    self.came += 1
                elif line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"SUB"):
                    subscription = line.split()[-1]
                elif line.startswith(b"PUB") and len(words := line.split()) == 4:
                    body = await reader.readexactly(int(words[3]) + 2)
                    writer.write(b"MSG %s %s %s\r\n" % (words[2], subscription, words[3]) + body)
        self._writers.discard(writer)
        writer.close()
