"""The messages that wait for the Auditor's journal: in order, bounded, and none lost unnoticed."""

from __future__ import annotations

import asyncio

import pytest
from kcm_auditor.deliveries import BATCH_MAX, Deliveries, Ended
from kcm_runtime.nats.push_consumer import SILENCE_S
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.audit_rig import FakeClock

SUBJECT = "kcm.v1.eu.audit.gw"


def message(number: int, place: int, body: bytes = b"body") -> Msg:
    reply = f"$JS.ACK.KCM_AUDIT.name.1.{place}.{number}.1700000000000000000.0"
    return Msg(_client=Client(), subject=SUBJECT, reply=reply, data=body)


def beat(last: int) -> Msg:
    headers = {"Status": "100", "Nats-Last-Consumer": str(last)}
    return Msg(_client=Client(), subject="_INBOX.x", data=b"", headers=headers)


async def places(deliveries: Deliveries) -> list[int]:
    return [arrival.position for arrival in await deliveries.batch()]


async def ends(deliveries: Deliveries) -> str:
    with pytest.raises(Ended) as caught:
        await asyncio.wait_for(deliveries.batch(), 5)
    return str(caught.value)


async def test_messages_come_in_order_and_in_batches() -> None:
    deliveries = Deliveries("eu", FakeClock())
    for number in range(1, BATCH_MAX + 3):
        await deliveries.receive(message(number, number + 7))
    assert await places(deliveries) == list(range(8, BATCH_MAX + 8))
    assert await places(deliveries) == [BATCH_MAX + 8, BATCH_MAX + 9]
    assert not deliveries.ended.is_set()


async def test_a_message_that_comes_later_is_waited_for() -> None:
    deliveries = Deliveries("eu", FakeClock())
    waiting = asyncio.create_task(deliveries.batch())
    await asyncio.sleep(0)
    await deliveries.receive(beat(0))
    await deliveries.receive(message(1, 4))
    (arrival,) = await asyncio.wait_for(waiting, 5)
    assert (arrival.region, arrival.position, arrival.subject, arrival.body) == (
        "eu",
        4,
        SUBJECT,
        b"body",
    )


@pytest.mark.parametrize("seen_by", ["the next message", "a heartbeat"])
async def test_a_lost_message_ends_the_consumer_after_those_before_it(seen_by: str) -> None:
    deliveries = Deliveries("eu", FakeClock())
    await deliveries.receive(message(1, 1))
    await deliveries.receive(beat(1))
    assert not deliveries.ended.is_set()
    await deliveries.receive(message(3, 3) if seen_by == "the next message" else beat(2))
    await deliveries.receive(message(4, 4))
    assert await places(deliveries) == [1]
    assert "lost in transit" in await ends(deliveries)


async def test_a_gap_of_the_stream_alone_is_no_lost_message() -> None:
    deliveries = Deliveries("eu", FakeClock())
    await deliveries.receive(message(1, 1))
    await deliveries.receive(message(2, 9))
    assert await places(deliveries) == [1, 9]


@pytest.mark.parametrize("bounds", [{"waiting_max": 5}, {"bytes_max": 20}])
async def test_what_waits_for_a_slow_journal_is_bounded(bounds: dict[str, int]) -> None:
    deliveries = Deliveries("eu", FakeClock(), **bounds)
    for number in range(1, 1001):
        await deliveries.receive(message(number, number))
    assert deliveries.ended.is_set()
    assert await places(deliveries) == [1, 2, 3, 4, 5]
    assert "faster than the journal" in await ends(deliveries)


async def test_what_was_recorded_makes_room_again() -> None:
    deliveries = Deliveries("eu", FakeClock(), waiting_max=2, bytes_max=8)
    for number in range(1, 100):
        await deliveries.receive(message(number, number))
        assert await places(deliveries) == [number]
    assert not deliveries.ended.is_set()


async def test_a_consumer_without_heartbeats_is_dead() -> None:
    clock = FakeClock()
    deliveries = Deliveries("eu", clock)
    clock.now += SILENCE_S - 0.1
    await deliveries.receive(beat(0))
    clock.now += SILENCE_S - 0.1
    await deliveries.receive(message(1, 1))
    assert await places(deliveries) == [1]
    clock.now += SILENCE_S
    assert await ends(deliveries) == "no heartbeat"


async def test_what_waits_is_discarded_if_the_position_goes_back() -> None:
    deliveries = Deliveries("eu", FakeClock())
    await deliveries.receive(message(1, 1))
    deliveries.end("read again", discard=True)
    await deliveries.receive(message(2, 2))
    assert await ends(deliveries) == "read again"


@pytest.mark.parametrize("reply", ["", "$JS.ACK.short", "$JS.ACK.a.b.1.x.y.z.0"])
async def test_a_delivery_of_unexpected_form_ends_the_consumer(reply: str) -> None:
    deliveries = Deliveries("eu", FakeClock())
    await deliveries.receive(Msg(_client=Client(), subject=SUBJECT, reply=reply, data=b""))
    assert "unexpected form" in await ends(deliveries)
