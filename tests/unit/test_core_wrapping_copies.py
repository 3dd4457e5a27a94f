"""Copies of a Gateway's requests: served once, and on record once in its name."""

from __future__ import annotations

import asyncio

import pytest
from kcm_core.providers.state import L1State
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.vault import CoreRequest
from kcm_sessions.sessions import INSTANCES

from tests.unit.core_rig import URI, is_request
from tests.unit.refusals import refused
from tests.unit.test_core_wrapping import Wire, fresh, refusals, unwrap, wrapped


@pytest.fixture
async def core(world):
    return await world.core().made()


def keys(core):
    """What is on record of keys: the operation, whose, with which code, and how many."""
    return [
        (kind, f["actor"], f["code"], f["count"])
        for kind, f in core.events
        if kind.startswith("keys.")
    ]


@pytest.mark.parametrize("operation", ["wrap", "unwrap"])
async def test_a_copy_is_not_served_and_nothing_that_its_gateway_did(core, operation):
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    client = core.client(ask=wire)
    core.events.clear()
    if operation == "wrap":
        await client.wrap("acme", "crm", "record", fresh())
    else:
        await unwrap(core, blobs, client=client)
    for _ in range(1000):
        assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.REPLAYED
    assert keys(core) == [(f"keys.{operation}", "gw-eu", Code.OK, 3)]
    core.wrapping.close()
    assert [(one.get("actor"), one["count"]) for one in refusals(core)] == [(None, 1), (None, 999)]


async def test_a_copy_with_something_else_in_clear_is_none_either(core):
    """Session and counter are sealed: around the same seal, they make no other request."""
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    for _ in range(2):  # two sessions of the same caller
        await unwrap(core, blobs, client=core.client(ask=wire))
    first, second = (decode(CoreRequest, body) for _, body in wire.seen)
    told = keys(core)
    mixed = first.model_copy(update={"session_id": second.session_id, "counter": 2})
    other = second.model_copy(update={"counter": 3})
    for copy in (mixed, other):
        assert await refused(core.wrapping.handle(wire.seen[0][0], encode(copy))) is Code.FORBIDDEN
    assert keys(core) == told


async def test_a_copy_is_nothing_to_a_core_that_started_again(world, core):
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    await unwrap(core, blobs, client=core.client(ask=wire))
    again = world.core()
    again.learn()
    assert await refused(again.wrapping.handle(*wire.seen[0])) is Code.UNKNOWN_SESSION


async def test_a_copy_is_nothing_after_its_session_was_closed(core):
    """A caller with many sessions loses the oldest one, and with it the record of its counters."""
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    await unwrap(core, blobs, client=core.client(ask=wire))
    for _ in range(INSTANCES.per_caller):
        await unwrap(core, blobs)
    assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.UNKNOWN_SESSION


async def test_a_refusal_is_recorded_once_and_the_gateway_may_ask_again(world, core):
    _, _, blobs = await wrapped(core)
    core.purge("acme")
    world.unsealer.key(URI).state = L1State.UNREACHABLE
    wire = Wire(core)
    client = core.client(ask=wire)
    core.events.clear()
    assert await refused(unwrap(core, blobs, client=client)) is Code.TENANT_UNAVAILABLE
    asked = len(world.unsealer.calls)
    for _ in range(100):
        assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.REPLAYED
    assert len(world.unsealer.calls) == asked, "the customer's key is left in peace"
    world.unsealer.key(URI).state = L1State.ENABLED
    assert (await unwrap(core, blobs, client=client))[1] == []
    assert keys(core) == [
        ("keys.unwrap", "gw-eu", Code.TENANT_UNAVAILABLE, 3), ("keys.unwrap", "gw-eu", Code.OK, 3),
    ]  # fmt: skip


async def test_what_a_gateway_may_not_ask_is_counted_once_in_its_name(core):
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    client = core.client(ask=wire)
    assert await refused(unwrap(core, blobs, client=client, tenant="bcme")) is Code.FORBIDDEN
    for _ in range(100):
        assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.REPLAYED
    core.wrapping.close()
    told = [(one.get("actor"), one["count"]) for one in refusals(core)]
    assert sorted(told, key=str) == [("gw-eu", 1), (None, 1), (None, 99)]


async def test_of_copies_that_wait_together_one_is_served(world, core):
    _, _, blobs = await wrapped(core)
    core.vault.purge("acme")
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(operation, subject):
        entered.set()
        await gate.wait()

    world.bus.stream.before = slow
    wire = Wire(core)
    core.events.clear()
    asking = asyncio.create_task(unwrap(core, blobs, client=core.client(ask=wire)))
    await entered.wait()
    copies = [asyncio.create_task(core.answer(*wire.seen[0])) for _ in range(10)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(asking, *copies, return_exceptions=True)
    assert keys(core) == [("keys.unwrap", "gw-eu", Code.OK, 3)]


async def test_a_forged_one_does_not_take_the_place_of_the_true_one(core):
    _, _, blobs = await wrapped(core)
    subject = data_subjects.core("eu", "core-eu", "unwrap", "acme", "crm")

    class Race(Wire):
        """A forgery of the same id comes first."""

        async def __call__(self, place, body, timeout_s):
            if not is_request(place):
                return await super().__call__(place, body, timeout_s)
            request = decode(CoreRequest, body)
            forged = request.model_copy(update={"sealed": bytes(len(request.sealed))})
            assert await refused(self.core.wrapping.handle(subject, encode(forged)))
            return await super().__call__(place, body, timeout_s)

    assert (await unwrap(core, blobs, client=core.client(ask=Race(core))))[1] == []
