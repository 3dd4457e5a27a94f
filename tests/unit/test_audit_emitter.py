from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kcm_runtime.audit.emitter import HEARTBEAT_S, AuditEmitter
from kcm_runtime.audit.event_chain import Chain, EventBuffer
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import StoreFull
from kcm_schemas import limits
from kcm_schemas.audit import AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role

from tests.audit_rig import FakeClock, System, until


class FakeStream:
    """Stores what it acknowledges; refuses while it is down."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.up = True
        self.attempts = 0
        self.bodies: list[bytes] = []
        self.error: BaseException = KcmError(Code.UNAVAILABLE)
        self.inside = 0

    async def __call__(self, subject: str, body: bytes) -> object:
        assert subject == "kcm.v1.eu.audit.gw"
        self.inside += 1
        assert self.inside == 1, "one batch in flight"
        await asyncio.sleep(0)
        self.inside -= 1
        self.attempts += 1
        if not self.up:
            raise self.error
        self.bodies.append(body)
        return len(self.bodies)

    @property
    def batches(self) -> list[AuditBatch]:
        return [self.system.verifier.audit(body) for body in self.bodies]

    @property
    def events(self) -> list[AuditEvent]:
        return [decode(AuditEvent, event) for batch in self.batches for event in batch.events]


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    return system


@pytest.fixture
def stream(system: System) -> FakeStream:
    return FakeStream(system)


def make(
    system: System, stream: FakeStream, clock: FakeClock, buffer: EventBuffer | None = None
) -> AuditEmitter:
    unused = Connection(BusAddress(url="nats://unused", user="none", password_file=Path("/")), "gw")
    me = system.instance_context("gw", b"b" * 16)
    return AuditEmitter(unused, me, clock, deliver=stream, buffer=buffer)


async def test_an_incarnation_from_start_to_stop(system: System, stream: FakeStream) -> None:
    emitter = make(system, stream, FakeClock())
    emitter.emit(EventType.DATA_ENCRYPT, actor="app", tenant="acme", service="billing", count=7)
    await emitter.start()
    await emitter.close()
    assert [e.type for e in stream.events] == ["instance.start", "data.encrypt", "instance.stop"]
    assert (stream.events[1].actor, stream.events[1].count) == ("app", 7)
    chain = Chain()
    for batch in stream.batches:
        assert (batch.first, batch.previous) == (chain.next_seq, chain.head)
        chain = chain.extend(batch.events)
    assert emitter.pending == 0
    assert not emitter.has_room


@pytest.mark.parametrize("error", [KcmError(Code.UNAVAILABLE), ValueError("a broken answer")])
async def test_a_batch_is_repeated_until_it_is_acknowledged(
    system: System, stream: FakeStream, error: Exception
) -> None:
    stream.up, stream.error = False, error
    emitter = make(system, stream, FakeClock())
    await emitter.start()
    await until(lambda: stream.attempts >= 2)
    assert emitter.pending == 1
    stream.up = True
    for number in range(600):
        emitter.emit(EventType.DATA_ENCRYPT, count=number)
    await until(lambda: emitter.pending == 0)
    counts = [e.count for e in stream.events if e.type == EventType.DATA_ENCRYPT]
    assert counts == list(range(600))
    await emitter.close()


async def test_a_full_stream_refuses_at_once_and_names_the_cause(
    system: System, stream: FakeStream
) -> None:
    emitter = make(system, stream, FakeClock())
    await emitter.start()
    await until(lambda: emitter.pending == 0)
    stream.up, stream.error = False, StoreFull()
    assert emitter.has_room
    emitter.emit(EventType.DATA_ENCRYPT, count=1)
    await until(lambda: not emitter.has_room)
    assert "audit stream is full" in emitter.refusal
    # A purge is recorded all the same, and everything is there once there is room.
    emitter.emit(EventType.HOLD_PURGED, count=2)
    stream.up = True
    await until(lambda: emitter.pending == 0)
    assert emitter.has_room
    assert [e.count for e in stream.events] == [0, 1, 2]
    await emitter.close()


async def test_a_flood_is_bounded_and_its_loss_shows(system: System, stream: FakeStream) -> None:
    stream.up = False
    emitter = make(system, stream, FakeClock(), EventBuffer(events_max=100))
    await emitter.start()
    await until(lambda: stream.attempts >= 1)
    room_ended = 0
    for number in range(10_000):
        emitter.emit(EventType.HOLD_PURGED, count=1)
        if emitter.has_room:
            room_ended = number + 1
    assert 0 < room_ended < 100
    assert emitter.pending <= 101
    stream.up = True
    await until(lambda: any(e.type == EventType.AUDIT_DROPPED for e in stream.events))
    assert emitter.has_room
    await emitter.close()
    kept = sum(e.type == "hold.purged" for e in stream.events)
    told = sum(e.count for e in stream.events if e.type == EventType.AUDIT_DROPPED)
    assert kept + told == 10_000
    last = stream.batches[-1]
    reports = sum(e.type == EventType.AUDIT_DROPPED for e in stream.events)
    # Start, stop and the reports have numbers too; so have the events that are missing.
    assert last.first + len(last.events) - 1 == 10_000 + 2 + reports


async def test_closing_is_bounded_when_nobody_acknowledges(
    system: System, stream: FakeStream
) -> None:
    stream.up = False
    emitter = make(system, stream, FakeClock())
    await emitter.start()
    await emitter.close(flush_s=0.05)
    assert emitter.pending == 2
    emitter.emit(EventType.DATA_ENCRYPT)
    assert emitter.pending == 2


async def test_whatever_a_request_brings_is_recorded_and_never_raises(
    system: System, stream: FakeStream
) -> None:
    emitter = make(system, stream, FakeClock())
    emitter.emit(EventType.DATA_DECRYPT, tenant="a.b.>", actor="", service="é", code=Code.FORBIDDEN)
    emitter.emit(
        EventType.DATA_DECRYPT,
        detail="\ud800" + "€" * 10_000,
        target="t" * 1000,
        count=-5,
        failed=1 << 80,
    )
    await emitter.start()
    await emitter.close()
    _, first, second, _ = stream.events
    assert (first.tenant, first.actor, first.service, first.code) == (None, None, None, "forbidden")
    assert (second.count, second.failed, len(second.detail)) == (0, (1 << 63) - 1, 2048)
    assert second.target == "t" * limits.TARGET_MAX


async def test_an_idle_instance_says_that_it_is_alive(system: System, stream: FakeStream) -> None:
    clock = FakeClock()
    emitter = make(system, stream, clock)
    clock.now += HEARTBEAT_S
    await emitter.start()
    await until(lambda: emitter.pending == 0)
    assert [e.type for e in stream.events] == ["instance.start", "instance.alive"]
    await emitter.close()


async def test_a_sender_that_ended_closes_the_door(system: System, stream: FakeStream) -> None:
    emitter = make(system, stream, FakeClock())
    await emitter.start()
    assert emitter.has_room
    stream.up, stream.error = False, asyncio.CancelledError()
    emitter.emit(EventType.DATA_ENCRYPT)
    await until(lambda: not emitter.has_room)
    await emitter.close()
