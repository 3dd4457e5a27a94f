"""What the bus must not do for an attacker: write where they say, take silence for emptiness."""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.request_server import IN_FLIGHT_MAX, RequestServer
from kcm_runtime.nats.store_health import Stores
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower
from kcm_runtime.nats.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import EncryptReply, decode_reply
from nats.js import errors as js_errors
from nats.js.api import PubAck, RawStreamMsg


@dataclass
class Message:
    subject: str
    reply: str = ""
    data: bytes = b""
    headers: dict[str, str] | None = None


@dataclass
class Bus:
    """A connection that delivers what a test says and keeps what is published."""

    callbacks: dict[str, object] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    stream: object = None
    stores: Stores = field(default_factory=Stores)
    over: str = ""

    async def subscribe(self, subject, callback, queue=""):
        self.callbacks[subject] = callback

    @property
    def client(self):
        return Library(self)

    async def unsubscribe(self, subject):
        self.callbacks.pop(subject, None)

    async def publish(self, subject, body, reply="", headers=None):
        self.sent.append((subject, body))

    def jetstream(self):
        return self.stream

    def on_reconnect(self, callback):
        pass


@dataclass
class Library:
    """The client library, as far as a follower uses it."""

    bus: Bus

    def new_inbox(self):
        return "_INBOX.consumer"

    async def subscribe(self, subject, cb):
        await self.bus.subscribe(subject, cb)
        return self

    async def unsubscribe(self):
        self.bus.callbacks.clear()


def service(bus):
    return RequestServer(bus, SystemClock(), name="kcm", service_id="1", version="1", metadata={})


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


STORED = [
    subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme"),
    subjects.control_hold("eu", "tenant", bytes(16)),
    subjects.control_lease("eu", "gw", bytes(16)),
    subjects.audit("eu", "core-1"),
    "$JS.API.STREAM.DELETE.KCM_CONTROL",
    "",
]


@pytest.mark.parametrize("reply", STORED)
async def test_no_answer_is_written_over_what_is_stored(reply):
    """Whoever asks names the subject of the answer: it must not be a hold or a wrapped key."""
    bus = Bus()
    admission = service(bus)

    async def handler(subject, body):
        return b"an answer"

    await admission.add("keys", "asked", handler, "queue")
    await admission.announce()
    for subject in ("asked", "$SRV.PING", "$SRV.STATS.kcm"):
        await bus.callbacks[subject](Message(subject, reply=reply))
    await settle()
    assert bus.sent == []
    await bus.callbacks["asked"](Message("asked", reply="_INBOX.a.b"))
    await settle()
    assert bus.sent == [("_INBOX.a.b", b"an answer")]


async def test_a_flood_of_data_does_not_keep_a_kill_waiting():
    bus, gate = Bus(), asyncio.Event()
    admission = service(bus)

    async def slow(subject, body):
        await gate.wait()
        return b"data"

    async def admin(subject, body):
        return b"killed"

    await admission.add("keys", "keys", slow, "queue")
    await admission.add("admin", "admin", admin, "queue", urgent=True)
    for _ in range(IN_FLIGHT_MAX + 1):
        await bus.callbacks["keys"](Message("keys", reply="_INBOX.data"))
    await bus.callbacks["admin"](Message("admin", reply="_INBOX.admin"))
    await settle()
    answers = dict(bus.sent)
    assert answers["_INBOX.admin"] == b"killed"
    with pytest.raises(KcmError) as info:
        decode_reply(EncryptReply, answers["_INBOX.data"])
    assert info.value.code is Code.BUSY
    gate.set()
    await admission.drain()
    assert sum(body == b"data" for _, body in bus.sent) == IN_FLIGHT_MAX


class Stream:
    """JetStream as a broker that lies: whatever ``answer`` returns or raises."""

    def __init__(self, answer):
        self.answer = answer

    async def get_last_msg(self, stream, subject):
        return self.answer()

    async def publish(self, subject, body, headers=None):
        return self.answer()


def raises(error):
    def answer():
        raise error

    return answer


async def test_a_lost_stream_is_not_an_empty_one():
    gone = js_errors.NotFoundError(code=404, err_code=10059, description="stream not found")
    none = js_errors.NotFoundError(code=404, err_code=10037, description="no message found")
    with pytest.raises(KcmError) as info:
        await last(Bus(stream=Stream(raises(gone))), "S", "s")
    assert info.value.code is Code.UNAVAILABLE
    assert await last(Bus(stream=Stream(raises(none))), "S", "s") is None


@pytest.mark.parametrize(
    "answer",
    [
        raises(ValueError("not JSON")),
        raises(KeyError("message")),
        raises(TypeError("a garbled answer")),
        lambda: RawStreamMsg(subject="another", seq=3, data=b"x"),
        lambda: RawStreamMsg(subject="s", seq=0, data=b"x"),
    ],
)
async def test_a_garbled_answer_is_unavailable_and_stops_no_task(answer):
    with pytest.raises(KcmError) as info:
        await last(Bus(stream=Stream(answer)), "S", "s")
    assert info.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("sequence", [None, 0, -1, "7"])
async def test_an_acknowledgement_has_a_sequence(sequence):
    bus = Bus(stream=Stream(lambda: PubAck(stream="S", seq=sequence)))
    with pytest.raises(KcmError) as info:
        await put(bus, "s", b"")
    assert info.value.code is Code.UNAVAILABLE


@dataclass
class Place:
    consumer: int
    stream: int


@dataclass
class Metadata:
    sequence: Place
    num_pending: int
    timestamp: datetime = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Delivered(Message):
    metadata: Metadata | None = None


class Stored:
    """JetStream with one stream, whose consumers deliver everything at once."""

    def __init__(self, bus, *entries):
        self.bus, self.entries = bus, entries

    async def stream_info(self, stream):
        return SimpleNamespace(created=None, state=SimpleNamespace(last_seq=len(self.entries)))

    async def add_consumer(self, stream, config):
        deliver = self.bus.callbacks[config.deliver_subject]
        for at, data in enumerate(self.entries, start=1):
            left = len(self.entries) - at
            await deliver(Delivered("s", data=data, metadata=Metadata(Place(at, at), left)))
        return SimpleNamespace(num_pending=0)


async def test_an_entry_that_fails_keeps_no_later_one_from_having_its_effect(caplog):
    caplog.set_level(logging.ERROR, logger="kcm_runtime.nats.streams")
    seen = []

    def receive(entry: Entry):
        if entry.data == b"bad":
            raise RuntimeError("with secret text")
        seen.append(entry.data)

    bus = Bus()
    bus.stream = Stored(bus, b"a", b"bad", b"b")
    follower = Follower(bus, "S", ">", SequentialFollower(receive), SystemClock())
    await follower.start()
    await follower.close()
    assert seen == [b"a", b"b"]
    assert follower.position == 3
    assert "had no effect" in caplog.text
    assert "secret" not in caplog.text
