"""What the client library cannot read ends nothing: not in a stream, and not on the way."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.stream_follower import SequentialFollower
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas import subjects

from tests.integration.auditor_rig import make_rig
from tests.integration.living import connected, eventually

CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"user":"u","pass":"pw",'
    b'"lang":"x","version":"1","protocol":1}\r\nPING\r\n'
)
PLACE = subjects.control_all("eu").removesuffix(">").encode()
HEADERS = {
    "no version": b"junk\r\n\r\n",
    "nothing": b"\r\n\r\n",
    "one byte": b"x",
    "only the version": b"NATS/1.0",
    "no headers": b"NATS/1.0\r\n\r\n",
    "no colon": b"NATS/1.0\r\njunk\r\n\r\n",
    "no end": b"NATS/1.0\r\na: b",
    "no text": b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    "zeros": b"NATS/1.0\r\n\0: \0\r\n\r\n",
    "large": b"NATS/1.0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "status no text": b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    "a word no text": b"NATS/1.0 503 \xff\xff\r\n\r\n",
    "a heartbeat": b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: x\r\n\r\n",
    "nobody": b"NATS/1.0 503\r\n\r\n",
}
SUBJECTS = {
    "no text": b"a\xff\xfe",
    "a vertical tab": b"a\x0bb",
    "a form feed": b"a\x0cb",
    "a tab and a number": b"a\x0b1",
    "a zero": b"a\0b",
    "a separator": b"a\x1cb",
    "long": b"a" * 3900,
}


@pytest.fixture
def rig(tmp_path):
    with make_rig(tmp_path) as made:
        yield made


@asynccontextmanager
async def region(rig):
    await rig.broker.start()
    await rig.broker.provision()
    async with connected(rig.broker.address, "core") as connection:
        yield connection


async def send(rig, subject, header, body=b"x"):
    """Publish as somebody does who keeps to no library."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.broker.port)
    await reader.readline()
    writer.write(CONNECT)
    line = b"HPUB %s %d %d\r\n" % (subject, len(header), len(header) + len(body))
    writer.write(line + header + body + b"\r\nPING\r\n")
    for _ in range(2):
        while await reader.readline() != b"PONG\r\n":
            pass
    writer.close()


def frames():
    for number, header in enumerate(HEADERS.values()):
        yield PLACE + b"x%d" % number, header
    for name in SUBJECTS.values():
        yield PLACE + name, b"NATS/1.0\r\n\r\n"


async def test_whoever_follows_a_stream_gets_what_cannot_be_read_and_goes_on(rig):
    sent = list(frames())
    async with region(rig) as connection:
        got = []
        follower = ControlLog(connection, "eu", SystemClock()).follow(
            SequentialFollower(got.append)
        )
        await follower.start()
        for subject, header in sent:
            await send(rig, subject, header, b"body")
        await follower.reached(len(sent))
        assert [one.sequence for one in got] == list(range(1, len(sent) + 1))
        assert {one.data for one in got} == {b"body"}
        for one in got:  # whoever puts the stream into a chain can, too
            assert Place().append(one.sequence, one.subject, one.data).sequence == one.sequence
        assert [one.subject.encode(errors="surrogateescape") for one in got] == [s for s, _ in sent]
        again = []
        later = ControlLog(connection, "eu", SystemClock()).follow(SequentialFollower(again.append))
        await later.start()
        assert {one.subject for one in again} == {one.subject for one in got}
        await later.close()
        await follower.close()


@pytest.mark.parametrize("name", SUBJECTS.values(), ids=SUBJECTS)
async def test_what_lies_under_a_name_that_is_none_can_be_cleared(rig, name):
    async with region(rig) as connection:
        got = []
        stream = ControlLog(connection, "eu", SystemClock())
        follower = stream.follow(SequentialFollower(got.append))
        await follower.start()
        await send(rig, PLACE + name, b"junk\r\n\r\n")
        await follower.reached(1)
        (junk,) = got
        await stream.put(junk.subject, b"", expected=junk.sequence)
        await follower.reached(2)
        assert (got[-1].subject, got[-1].data) == (junk.subject, b"")
        await follower.close()


async def test_what_cannot_be_read_on_the_way_keeps_nobody_from_being_served(rig):
    async with region(rig) as connection:
        heard = []

        async def answer(message):
            heard.append((message.subject, message.reply))
            if message.reply:
                await connection.publish(message.reply, b"answer")

        await connection.subscribe("a.>", answer)
        await connection.flush()
        for header in HEADERS.values():
            await send(rig, b"a.b", header)
        for name in SUBJECTS.values():
            await send(rig, b"a." + name, b"NATS/1.0\r\n\r\n")
            await send(rig, b"a.b _INBOX." + name, b"NATS/1.0\r\n\r\n")
        async with rig.broker.client() as client:
            assert (await client.request("a.b", b"question", timeout=5)).data == b"answer"
        assert len(heard) == len(HEADERS) + 2 * len(SUBJECTS) + 1


async def test_reading_that_ends_by_a_fault_is_an_outage_and_the_connection_comes_back(
    rig, monkeypatch, caplog
):
    async with region(rig) as connection:
        heard, back = [], []
        connection.on_reconnect(lambda: back.append(1))

        async def hear(message):
            heard.append(message.data)

        await connection.subscribe("a.b", hear)
        await connection.flush()
        with monkeypatch.context() as patch:

            async def fail(*_):
                patch.undo()
                raise LookupError

            patch.setattr(ReadingClient, "_process_msg", fail)
            with caplog.at_level(logging.ERROR):
                await send(rig, b"a.b", b"NATS/1.0\r\n\r\n")

                async def returned():
                    return back and connection.connected

                await eventually(returned)
        assert "reading from the broker ended" in caplog.text
        await send(rig, b"a.b", b"NATS/1.0\r\n\r\n", b"after")

        async def hears():
            return heard == [b"after"]

        await eventually(hears)
