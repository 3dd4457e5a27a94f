"""A client of a broker without a library, for tests that count every line of the server."""

import asyncio
import base64
import contextlib
import json

from tests.integration.broker_rig import HOST


class Wire:
    """A client without a library: what it sends is known, and every line is read."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, *lines):
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def until_pong(self):
        """Return every line before the answer to a PING; bodies of messages are lines, too."""
        self.send("PING")
        await self.writer.drain()
        found = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 10)).decode().rstrip("\r\n")
            if line == "PONG":
                return found
            assert self.reader.at_eof() is False, found[-1:]
            found.append(line)


@contextlib.asynccontextmanager
async def wire(server, ca, made):
    """Connect with credentials, TLS first."""
    reader, writer = await asyncio.open_connection(
        HOST, server.port, ssl=ca.client(), server_hostname="localhost", limit=1 << 20
    )
    try:
        line = await asyncio.wait_for(reader.readline(), 10)
        nonce = json.loads(line.removeprefix(b"INFO "))["nonce"]
        signed = base64.urlsafe_b64encode(made.key.sign(nonce.encode())).decode().rstrip("=")
        said = {"jwt": made.token, "sig": signed, "verbose": False, "pedantic": False}
        one = Wire(reader, writer)
        one.send("CONNECT " + json.dumps(said | {"lang": "test", "version": "0", "protocol": 1}))
        assert not [line for line in await one.until_pong() if line.startswith("-ERR")]
        yield one
    finally:
        writer.transport.abort()
