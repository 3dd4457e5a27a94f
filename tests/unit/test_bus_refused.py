"""A request that the broker refuses fails at once, and the others go on."""

import asyncio
import contextlib
import time

import pytest
from kcm_runtime.nats import client as client_module
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.connect_failures import Refused
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import NotAllowed
from kcm_schemas.codes import Code
from nats.errors import TimeoutError as NatsTimeoutError

from tests.fakes.broker import FirstWords

NO = "kcm.v1.Eu.no"
"""A subject that the broker refuses. The library changes it to lower case."""

SILENT = "kcm.v1.eu.silent"
LATE = "kcm.v1.eu.late"

pytestmark = pytest.mark.filterwarnings("error")


class Refusing(FirstWords):
    """A broker that refuses one subject, answers others, and lets one wait."""

    def __init__(self):
        super().__init__("2.15.1")
        self.go = asyncio.Event()

    async def _talk(self, reader, writer):
        said = b'INFO {"server_id":"x","max_payload":1048576,"proto":1,"version":"2.15.1"}\r\n'
        writer.write(said)
        self._writers.add(writer)
        number = b""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                words = line.split()
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"SUB"):
                    number = words[-1]
                elif line.startswith(b"PUB"):
                    body = await reader.readexactly(int(words[-1]) + 2)
                    await self._answer(writer, words, number, body)
        writer.close()

    async def _answer(self, writer, words, number, body):
        subject = words[1].decode()
        if subject == NO:
            writer.write(b"-ERR 'Permissions Violation for Publish to \"%s\"'\r\n" % words[1])
            self.go.set()
        elif subject != SILENT and len(words) == 4:
            if subject == LATE:
                await self.go.wait()
            writer.write(b"MSG %s %s %s\r\n" % (words[2], number, words[3]) + body)


@pytest.fixture
async def broker():
    one = Refusing()
    await one.start()
    yield one
    await one.close()


async def quiet(_error):
    """Errors of the connection are what these tests look at otherwise."""


@pytest.fixture
async def client(broker):
    one = ReadingClient()
    await one.connect([f"nats://127.0.0.1:{broker.port}"], quiet)
    yield one
    await one.close()


async def test_a_refused_request_fails_at_once_and_says_why(broker, tmp_path):
    connection = Connection(broker.address(tmp_path), "test")
    await connection.start()
    try:
        started = time.monotonic()
        with pytest.raises(NotAllowed, match="its credentials lack the right") as caught:
            await connection.request(NO, b"x", 60.0)
        # The broker's word: to callers it is no refusal of an instance.
        assert caught.value.code is Code.UNAVAILABLE
        assert time.monotonic() - started < 30
        assert await connection.request("kcm.v1.eu.yes", b"still", 60.0) == b"still"
    finally:
        await connection.close()


async def test_other_requests_go_on(client):
    silent = asyncio.create_task(client.request(SILENT, b"", 60.0))
    refused = [asyncio.create_task(client.request(NO, b"", 60.0)) for _ in range(3)]
    for one in refused:
        with pytest.raises(Refused):
            await one
    assert not silent.done()
    assert (await client.request("kcm.v1.eu.yes", b"yes", 60.0)).data == b"yes"
    silent.cancel()
    await asyncio.wait({silent})
    assert client._resp_map == {}  # noqa: SLF001 - nothing else shows it


async def test_a_message_without_a_reply_that_is_refused_fails_no_request(client):
    await client.request("kcm.v1.eu.yes", b"first", 60.0)
    silent = asyncio.create_task(client.request(SILENT, b"", 0.3))
    await client.publish(NO, b"")
    await client.publish(NO, b"", reply="somewhere.else")
    with pytest.raises(NatsTimeoutError):
        await silent


async def test_what_was_asked_is_forgotten_in_time(client, monkeypatch):
    monkeypatch.setattr(client_module, "_ASKED_MAX", 8)
    most = 0
    for _ in range(100):
        await client.request("kcm.v1.eu.yes", b"x", 60.0)
        most = max(most, len(client._asked))  # noqa: SLF001 - nothing else shows it
    assert 0 < most <= 8 + 2
    with pytest.raises(Refused):
        await client.request(NO, b"", 60.0)


async def test_what_is_asked_at_once_is_kept_while_it_waits(client, monkeypatch):
    monkeypatch.setattr(client_module, "_ASKED_MAX", 2)
    silent = [asyncio.create_task(client.request(SILENT, b"", 60.0)) for _ in range(20)]
    await asyncio.sleep(0)
    for _ in range(50):
        await client.request("kcm.v1.eu.yes", b"x", 60.0)
    asked = list(client._asked.values())  # noqa: SLF001 - nothing else shows it
    assert asked.count(SILENT) == 20
    assert len(asked) <= 2 + 2 * 21
    for one in silent:
        one.cancel()
    await asyncio.wait(silent)
