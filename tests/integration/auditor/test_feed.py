"""Following a region's stream with an Auditor's rights, into a journal of this test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from kcm_auditor import deliveries, ingest
from kcm_auditor.arrivals import Arrival, Verdict
from kcm_auditor.sink import StreamFacts
from kcm_broker.roles import Role as BrokerRole
from kcm_broker.roles import inbox_prefix
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.connection import Connection
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerInfo

from tests.audit_rig import REGION, until
from tests.integration.auditor_rig import Rig

SUBJECT = subjects.audit(REGION, "gw")


@dataclass
class Recorded:
    """A journal in memory that takes ``flush_s`` to flush."""

    flush_s: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    facts: StreamFacts | None = None

    def position(self, region: str) -> int:
        return self.arrivals[-1].position if self.arrivals else 0

    def compare(self, region: str, facts: StreamFacts) -> Verdict:
        return Verdict.NEW if self.facts is None else Verdict.SAME

    async def opened(self, region: str, facts: StreamFacts, head: bytes) -> None:
        self.facts = facts

    def recorded(self, arrival: Arrival) -> bool:
        return arrival in self.arrivals

    async def went_back(self, region: str, first: int) -> None:
        raise AssertionError("the stream did not go back")

    async def trimmed(self, region: str, statement: bytes, facts: StreamFacts) -> None:
        raise AssertionError("there is no trim")

    def noticed(self, region: str, facts: StreamFacts) -> None:
        pass

    async def take(self, arrivals: Sequence[Arrival]) -> None:
        await asyncio.sleep(self.flush_s)
        self.arrivals += arrivals

    def reachable(self, region: str, *, up: bool) -> None:
        pass

    @property
    def positions(self) -> list[int]:
        return [arrival.position for arrival in self.arrivals]


@asynccontextmanager
async def following(rig: Rig, sink: Recorded) -> AsyncIterator[None]:
    address = rig.broker.address.model_copy(
        update={"user": "auditor", "inbox": inbox_prefix(BrokerRole.AUDITOR, "auditor")}
    )
    connection = Connection(address, "auditor")
    await connection.start()
    stopping = asyncio.Event()
    feed = ingest.RegionFeed(
        connection, REGION, "auditor", sink, stopping, lambda *_, **__: None, SystemClock()
    )
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        stopping.set()
        task.cancel()
        await asyncio.wait([task])
        await connection.close()


async def fill(rig: Rig, count: int) -> None:
    async with rig.broker.client() as client:
        js = client.jetstream()
        for number in range(count):
            await js.publish(SUBJECT, b"%d" % number)


async def consumers(rig: Rig) -> list[ConsumerInfo]:
    async with rig.broker.client() as client:
        return await client.jetstream().consumers_info(subjects.AUDIT_STREAM)


async def test_messages_do_not_pile_up_before_a_slow_journal(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[deliveries.Deliveries] = []

    def bounded(*arguments: object) -> deliveries.Deliveries:
        made.append(deliveries.Deliveries(*arguments, waiting_max=150))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(ingest, "Deliveries", bounded)
    caplog.set_level("INFO")
    await fill(rig, 600)
    sink = Recorded(flush_s=0.02)
    most = 0
    async with following(rig, sink):
        while len(sink.arrivals) < 600:
            most = max([most, *(len(one._waiting) for one in made)])  # noqa: SLF001
            await asyncio.sleep(0)
    assert sink.positions == list(range(1, 601))
    assert 0 < most <= 150
    assert "faster than the journal is written" in caplog.text


async def test_a_message_that_the_library_drops_is_read_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bytes] = []
    receive = deliveries.Deliveries.receive

    async def dropping(self: deliveries.Deliveries, message: Msg) -> None:
        if message.data in (b"20", b"99") and message.data not in dropped:
            dropped.append(message.data)
            return
        await receive(self, message)

    monkeypatch.setattr(deliveries.Deliveries, "receive", dropping)
    await fill(rig, 100)
    sink = Recorded()
    async with following(rig, sink):
        await until(lambda: len(sink.arrivals) == 100)
        await fill(rig, 1)
        await until(lambda: len(sink.arrivals) == 101)
    assert dropped == [b"20", b"99"]  # the last one shows by a heartbeat
    assert sink.positions == list(range(1, 102))


async def test_consumers_have_names_of_their_own_and_no_acknowledgements(rig: Rig) -> None:
    one, two = Recorded(), Recorded()
    await fill(rig, 1)
    async with following(rig, one), following(rig, two):
        await until(lambda: one.arrivals and two.arrivals)
        found = await consumers(rig)
        assert len({info.name for info in found}) == 2
        for info in found:
            assert info.name.startswith("auditor-")
            assert info.config.durable_name is None
            assert info.config.ack_policy == AckPolicy.NONE
            assert info.config.filter_subject == subjects.audit_all(REGION)
            assert info.config.inactive_threshold
        await fill(rig, 1)
        await until(lambda: len(one.arrivals) == len(two.arrivals) == 2)


async def test_a_consumer_that_is_gone_is_noticed_and_replaced(rig: Rig) -> None:
    sink = Recorded()
    await fill(rig, 3)
    async with following(rig, sink):
        await until(lambda: len(sink.arrivals) == 3)
        (gone,) = await consumers(rig)
        async with rig.broker.client() as client:
            await client.jetstream().delete_consumer(subjects.AUDIT_STREAM, gone.name)
        await fill(rig, 2)
        await until(lambda: len(sink.arrivals) == 5)
        assert gone.name not in {info.name for info in await consumers(rig)}
    assert sink.positions == [1, 2, 3, 4, 5]


@pytest.mark.slow
async def test_protection_that_is_removed_while_it_reads_is_reported(rig: Rig) -> None:
    await rig.start_auditor()
    await until(lambda: rig.events("auditor"))
    async with rig.broker.client() as client:
        js = client.jetstream()
        config = (await js.stream_info(subjects.AUDIT_STREAM)).config
        config.max_age = 3600
        await js.update_stream(config)
    await until(lambda: any(e.type == EventType.STREAM_WEAK for _, e in rig.events("auditor")))
    assert rig.end_auditor() == 0
