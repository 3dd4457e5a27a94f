"""What an application at a Gateway notices of the flood of another one. Nothing asserts a time."""

from __future__ import annotations

import asyncio

import pytest
from kcm_runtime.fair_queue import Bounds
from kcm_runtime.nats import work_slots
from kcm_runtime.nats.work_slots import WORK, Place, Turns
from kcm_schemas import data_subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import SealedRequest

from tests.unit.fair_rig import Gateway


async def opened(gateway, *channels):
    """Let each application have its session, so that what follows are only requests."""
    for one in channels:
        await gateway.ask(one, b"first")
    gateway.work.order.clear()


async def settle(rounds=300):
    for _ in range(rounds):
        await asyncio.sleep(0)


async def test_a_flood_of_one_application_leaves_another_one_its_turns():
    gateway = Gateway()
    flood, shop = await gateway.start("flood", "shop")
    await opened(gateway, flood, shop)
    many = [gateway.ask(flood, b"flood") for _ in range(300)]
    await settle(10)
    few = [gateway.ask(shop, b"shop") for _ in range(5)]
    await asyncio.gather(*few)
    assert gateway.work.order.count(b"flood") <= 40
    await asyncio.gather(*many)
    assert gateway.work.order.count(b"flood") == 300


async def test_too_much_of_one_application_is_refused_and_another_one_served():
    gateway = Gateway()
    flood, shop = await gateway.start("flood", "shop")
    await opened(gateway, flood, shop)
    most = WORK.requests // 3
    many = []
    for _ in range(4):  # fewer at a time than have room at the door
        many += [gateway.ask(flood, b"hang") for _ in range(150)]
        await settle()
    await gateway.ask(shop, b"shop")
    refusals = [task.exception() for task in many if task.done()]
    assert {one.code for one in refusals} == {Code.BUSY}
    assert all("wait for answers" in one.detail for one in refusals)
    assert len(many) - len(refusals) == most
    gateway.work.go_on.set()
    await asyncio.gather(*many, return_exceptions=True)


async def test_requests_that_hang_leave_others_their_places():
    gateway = Gateway()
    flood, shop = await gateway.start("flood", "shop")
    await opened(gateway, flood, shop)
    many = [gateway.ask(flood, b"hang") for _ in range(200)]
    await settle()
    assert gateway.work.hanging == WORK.running
    for _ in range(5):
        await gateway.ask(shop, b"shop")
    assert gateway.work.order == [b"shop"] * 5
    many.pop(0).cancel()
    gateway.work.go_on.set()
    await asyncio.gather(*many)


async def test_what_is_forged_in_the_name_of_an_application_gets_none_of_its_places():
    gateway = Gateway()
    (shop,) = await gateway.start("shop")
    await opened(gateway, shop)
    me = gateway.me.name
    subject = data_subjects.gateway_at("eu", me, "encrypt", "acme", "crm")
    forged = encode(
        SealedRequest(v=1, caller="shop", session_id=bytes(16), counter=1, asks=[], sealed=b"x")
    )
    answers, refused = [], 0
    for number in range(2000):
        answers.append(await gateway.link.deliver(subject, forged, "forged"))
        refused += answers[-1].done()
        if number == 1000:
            wanted = gateway.ask(shop, b"shop")
            await asyncio.sleep(0)
    assert refused > 0
    await wanted
    served = [one for one in answers if one.done()]
    assert len(served) - refused < 50
    await asyncio.gather(*answers)
    assert gateway.work.order == [b"shop"]


async def test_a_request_whose_deadline_passes_while_it_waits_is_no_work():
    gateway = Gateway()
    flood, shop = await gateway.start("flood", "shop")
    await opened(gateway, flood, shop)
    many = [gateway.ask(flood, b"hang") for _ in range(WORK.running)]
    await settle()
    late = gateway.ask(flood, b"late", left_ms=1000)
    await settle()
    gateway.clock.now += 2.0
    gateway.work.go_on.set()
    with pytest.raises(KcmError) as info:
        await late
    assert info.value.code is Code.DEADLINE_EXCEEDED
    assert b"late" not in gateway.work.order
    await asyncio.gather(*many)


async def test_unknown_tenants_of_an_application_are_one_lane():
    gateway = Gateway()
    (shop,) = await gateway.start("shop")
    await opened(gateway, shop)
    turns = gateway.server._turns  # noqa: SLF001 - the bounds of memory are not visible elsewhere
    many = [gateway.ask(shop, b"hang") for _ in range(100)]
    await settle()
    assert turns.work.lanes == 2
    gateway.work.go_on.set()
    await asyncio.gather(*many)
    assert (turns.work.lanes, turns.door.lanes, len(turns.work), len(turns.door)) == (0, 0, 0, 0)


async def test_a_cancelled_request_frees_its_place_wherever_it_waits():
    turns = Turns(lambda: 0, work=Bounds(requests=100, size=1000, running=1))
    begun = []

    async def serve(name):
        place = Place(turns, (name,), 1)
        try:
            await place.turn()
            await place.work((name, "t"), 1, 1.0)
            begun.append(name)
            await asyncio.sleep(3600)
        finally:
            place.leave()

    tasks = [asyncio.create_task(serve("a")) for _ in range(3)]
    await settle(50)
    assert begun == ["a"]
    for task in tasks:
        task.cancel()
        await settle(50)
    assert (len(turns.work), turns.work.lanes, turns.work.waiting) == (0, 0, 0)
    assert begun == ["a", "a", "a"]


async def test_answers_that_arrive_together_take_turns_with_what_is_urgent():
    turns, order, arrived = Turns(lambda: 0), [], asyncio.Event()

    async def serve(number):
        place = Place(turns, (number,), 1)
        work_slots.begin(place)
        await place.turn()
        await work_slots.work((number, "t"), records=1, ends_ms=1.0)
        await arrived.wait()
        await work_slots.next_turn()
        order.append(number)
        place.leave()

    tasks = [asyncio.create_task(serve(number)) for number in range(20)]
    await settle()
    arrived.set()
    await asyncio.sleep(0)
    await turns.take(urgent=True)
    assert len(order) <= 2
    await asyncio.gather(*tasks)
    assert sorted(order) == list(range(20))


async def test_without_a_server_there_is_no_wait():
    await work_slots.work(("a", "t"), records=1, ends_ms=0)
    await work_slots.next_turn()
    assert not work_slots.contended()
