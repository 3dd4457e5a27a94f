"""Clients of a system's brokers, and a hostile leaf node in the place of a region's broker."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator

import nats
from kcm_devsystem.brokers import Account, Role
from kcm_devsystem.topology import Topology
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

A, B, C = "eu-de", "us-east", "ap-south"
SECONDS = 20.0


@contextlib.asynccontextmanager
async def connected(system: Topology, region: str, account: Account) -> AsyncIterator[Client]:
    spec = system.region(region)
    login = spec.login(Role.VISITOR, account)
    client = await nats.connect(
        spec.url,
        user=login.user,
        password=login.password,
        allow_reconnect=False,
    )
    try:
        yield client
    finally:
        await client.close()


class Heard:
    """What a client hears, and a way to wait for something to be heard."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self._changed = asyncio.Event()

    async def hear(self, message) -> None:
        self.subjects.append(message.subject)
        self._changed.set()

    async def listen(self, client: Client, subject: str) -> "Heard":
        await client.subscribe(subject, cb=self.hear)
        await client.flush()
        return self

    async def until(self, subject: str) -> None:
        async with asyncio.timeout(SECONDS):
            while subject not in self.subjects:
                self._changed.clear()
                await self._changed.wait()

    async def until_linked(self, sender: Client, origin: str = A) -> None:
        """Wait until what the region's sender publishes arrives here: interest has to travel."""
        probe = f"kcm.v1.ctl.probe.{origin}.{secrets.token_hex(4)}"
        async with asyncio.timeout(SECONDS):
            while probe not in self.subjects:
                self._changed.clear()
                await sender.publish(probe, b"")
                await sender.flush()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.1)


async def ask(client: Client, subject: str):
    """Ask until interest in the subject has travelled here."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(NoRespondersError, NatsTimeoutError):
                return await client.request(subject, b"", timeout=1.0)


async def greeted(host: str, port: int, user: str, password: str) -> bytes:
    """Log in by hand and return the server's answer: the client leaks a refused connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(SECONDS):
            await reader.readline()
            login = json.dumps({"user": user, "pass": password, "verbose": False})
            writer.write(b"CONNECT " + login.encode() + b"\r\nPING\r\n")
            return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


class RogueLeaf:
    """A region's broker that an attacker rewrote: it sends whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def join(cls, system: Topology, region: str) -> "RogueLeaf":
        backbone = system.backbone
        reader, writer = await asyncio.open_connection(backbone.host, backbone.leaf_port)
        assert (await reader.readline()).startswith(b"INFO ")
        leaf = next(leaf for leaf in backbone.leaves if leaf.region == region)
        connect = {
            "user": leaf.region,
            "pass": leaf.password,
            "version": "2.15.1",
            "server_id": "N" + secrets.token_hex(27).upper(),
            "name": "rogue",
            "headers": True,
            "protocol": 1,
        }
        writer.write(b"CONNECT " + json.dumps(connect).encode() + b"\r\nPING\r\n")
        return cls(reader, writer)

    def publish(self, subject: str, payload: bytes) -> None:
        self._writer.write(f"LMSG {subject} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def subscribe(self, subject: str) -> None:
        self._writer.write(f"LS+ {subject}\r\n".encode())

    async def heard_until(self, marker: bytes) -> bytes:
        """Read what the backbone sends until ``marker`` comes."""
        text = b""
        async with asyncio.timeout(SECONDS):
            while marker not in text:
                part = await self._reader.readline()
                if not part:
                    raise AssertionError(text)
                text += part
                if part.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
        return text

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()
