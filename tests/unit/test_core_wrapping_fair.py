"""In whose name a request waits for the work of a Core."""

from __future__ import annotations

import asyncio

import pytest
from kcm_runtime.nats import work_slots
from kcm_runtime.nats.work_slots import Place, Turns, cost_of
from kcm_schemas.codec import decode, encode, start_of
from kcm_schemas.codes import Code
from kcm_schemas.limits import RECORDS_MAX
from kcm_schemas.vault import CoreRequest

from tests.unit.core_rig import is_request
from tests.unit.refusals import refused
from tests.unit.test_core_wrapping import Wire, unwrap, wrapped


@pytest.fixture
async def core(world):
    return await world.core().made()


@pytest.fixture
async def request_of_gateway(core):
    """A request that the Core did not get: its subject and its body."""
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    wire.seen.clear()

    async def lose(subject, body, timeout_s=1.0):
        if is_request(subject):
            seen.append((subject, body))
            raise asyncio.CancelledError
        return await core.answer(subject, body, timeout_s)

    seen = []
    with pytest.raises(asyncio.CancelledError):
        await unwrap(core, blobs, client=core.client(ask=lose))
    return seen[0]


class Busy:
    """A Core with other work: one request runs, and another one waits."""

    def __init__(self):
        self.turns = Turns(lambda: 0)

    async def serve(self, core, subject, body):
        other = Place(self.turns, ("other",), 1)
        waits = asyncio.create_task(other.work(("other", "t"), 1, 1e18))
        self.turns._polls = 1  # noqa: SLF001 - what would pass by waits, too
        self.turns._scheduled = True  # noqa: SLF001 - turns are granted by hand
        await asyncio.sleep(0)
        place = Place(self.turns, ("x",), len(body))
        work_slots.begin(place)
        place.grant(in_time=True)
        serving = asyncio.create_task(core.wrapping.handle(subject, body))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.waiting = self.turns.work.waiting
        self.turns._scheduled = False  # noqa: SLF001
        self.turns.schedule()
        try:
            return await serving
        finally:
            await waits


async def test_a_request_that_has_to_wait_waits_in_the_name_of_the_one_who_sealed_it(
    core, request_of_gateway
):
    busy = Busy()
    await busy.serve(core, *request_of_gateway)
    assert busy.waiting == 2


async def test_a_forged_request_never_waits_in_the_name_of_a_gateway(core, request_of_gateway):
    subject, body = request_of_gateway
    known = decode(CoreRequest, body)
    forged = encode(known.model_copy(update={"sealed": bytes(len(known.sealed))}))
    busy = Busy()
    assert await refused(busy.serve(core, subject, forged)) is Code.FORBIDDEN
    assert busy.waiting == 1


async def test_the_lane_at_the_door_is_of_an_open_session_alone(core, request_of_gateway):
    _, body = request_of_gateway
    known = decode(CoreRequest, body)
    sessions = core.wrapping._sessions  # noqa: SLF001 - the Core hands it to its request server
    assert sessions.lane(body) == (known.caller, known.session_id)
    for changed in ({"caller": "gw-us"}, {"session_id": bytes(16)}):
        assert sessions.lane(encode(known.model_copy(update=changed))) == (None, None)
    for junk in (b"", b"\x81", b"\xff" * 200, b"\x81\xa6caller\xc0", b"\xdf\xff\xff\xff\xff" * 30):
        assert sessions.lane(junk) == (None, None)


def test_the_start_of_a_message_ends_with_its_first_list():
    body = b"\x83\xa1v\x01\xabdeadline_ms\xcd\x03\xe8\xa7records\x92\xc4\x01a\xc4\x01b"
    assert start_of(body) == {"v": 1, "deadline_ms": 1000, "records": 2}
    assert start_of(body[:15]) == {"v": 1}
    assert start_of(b"") == start_of(b"\xc1" * 200) == {}


def test_what_a_message_states_neither_lowers_nor_raises_its_cost_without_a_bound():
    least, most = cost_of(0, 0), cost_of(RECORDS_MAX, 0)
    assert cost_of(-(2**63), 0) == least
    assert cost_of(2**32 - 1, 0) == most
