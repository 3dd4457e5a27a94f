"""Clients of a system's brokers, and a hostile leaf node in the place of a region's broker."""

import asyncio
import base64
import contextlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import nats
from kcm_broker.roles import Account
from kcm_deployment.broker_files import BACKBONE, LINKS
from kcm_devsystem.configs import visitor
from kcm_devsystem.topology import Topology
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.login import Login
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

A, B, C = "eu-de", "us-east", "ap-south"
SECONDS = 20.0


@contextlib.asynccontextmanager
async def connected(system: Topology, region: str, account: Account) -> AsyncIterator[Client]:
    address = visitor(system, region, account)
    if account is Account.CONTROL:
        # Only what is sent to a Core's inbox comes back over the links.
        address = address.model_copy(update={"inbox": "_INBOX.core.visitor"})
    client = await nats.connect(address.url, allow_reconnect=False, **Login(address).options())
    try:
        yield client
    finally:
        await client.close()


async def written(client: Client) -> None:
    """Wait until the broker has read all: the first PING goes before what waits to be written."""
    await client.flush()
    await client.flush()


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
        await written(client)
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


def login_of(made: Credentials, nonce: str) -> dict[str, str]:
    """What a client says of itself: its token, and the server's nonce under its signature."""
    signed = base64.urlsafe_b64encode(made.key.sign(nonce.encode())).decode().rstrip("=")
    return {"jwt": made.token, "sig": signed}


async def opened(
    host: str, port: int, ca: Path, own: Path | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that speaks TLS from the first byte; ``own`` is the client's certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if own is not None:
        context.load_cert_chain(own, own.with_suffix(".key"))
    return await asyncio.open_connection(host, port, ssl=context)


async def greeted(host: str, port: int, ca: Path, made: Credentials | None) -> bytes:
    """Log in by hand and return the server's answer: the client leaks a refused connection."""
    reader, writer = await opened(host, port, ca)
    try:
        async with asyncio.timeout(SECONDS):
            nonce = json.loads((await reader.readline()).removeprefix(b"INFO "))["nonce"]
            login = login_of(made, nonce) if made else {}
            said = json.dumps(login | {"verbose": False})
            writer.write(b"CONNECT " + said.encode() + b"\r\nPING\r\n")
            while (line := await reader.readline()).startswith(b"INFO "):
                pass
            return line
    finally:
        writer.transport.abort()


class RogueLeaf:
    """A region's broker that an attacker rewrote: it sends whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def join(cls, system: Topology, region: str) -> "RogueLeaf":
        backbone, brokers = system.backbone, system.brokers
        ca = brokers.certificates(BACKBONE).ca
        own = brokers.certificates(LINKS).certificate(system.region(region).server_name)
        reader, writer = await opened(backbone.host, backbone.leaf_port, ca, own)
        nonce = json.loads((await reader.readline()).removeprefix(b"INFO "))["nonce"]
        connect = {
            **login_of(credentials.read(brokers.link_file(region)), nonce),
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
        """Read what the backbone sends until ``marker`` comes, or until it ends the link."""
        text = b""
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionError):
                while marker not in text and (part := await self._reader.readline()):
                    text += part
                    if part.startswith(b"PING"):
                        self._writer.write(b"PONG\r\n")
        return text

    async def close(self) -> None:
        self._writer.transport.abort()
