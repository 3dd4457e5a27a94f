"""A kill and the engine: one admission per request, and no output or key in another generation."""

import asyncio

import pytest
from kcm_gateway import pieces as pieces_module
from kcm_gateway.keys.lookup import REQUESTS_MAX
from kcm_schemas import record
from kcm_schemas.codes import Code
from kcm_schemas.registry import Tenant

from tests.unit.core_rig import TENANT
from tests.unit.gateway_rig import Rig
from tests.unit.refusals import refused
from tests.unit.trust_rig import hold


@pytest.fixture
async def rig(tmp_path):
    made = await Rig.make(tmp_path)
    yield made
    made.engine.close()


def same(permits):
    """Whether all of them are one object."""
    return len({id(permit) for permit in permits}) == 1


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("cache_keys_max", [0, 64])
async def test_a_request_is_admitted_once(tmp_path, monkeypatch, pieces, cache_keys_max):
    """However many pieces, refills and requests to a Core it takes: its permit is passed down."""
    monkeypatch.setattr(pieces_module, "PIECE", 3)
    rig = await Rig.make(tmp_path, cache_keys_max=cache_keys_max)
    admission, plains = rig.admission, [bytes([n]) for n in range(3 * pieces)]
    sealed = await rig.engine.encrypt("acme", "crm", plains)
    await rig.quiet()
    assert len(admission.admitted) == 1
    assert rig.wire.count("wrap") > 1  # the pool was filled, and once more ahead of need
    assert same(admission.admitted + admission.rechecked)
    for _ in range(2):
        admission.admitted.clear()
        admission.rechecked.clear()
        assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == plains
        assert len(admission.admitted) == 1
        assert same(admission.admitted + admission.rechecked)
    rig.engine.close()


async def test_an_unknown_tenant_that_is_looked_up_is_admitted_once(rig):
    rig.registry.drop(TENANT)
    rig.store(TENANT)
    assert (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    assert rig.fetched == ["acme"]
    assert len(rig.admission.admitted) == 1


async def test_a_kill_between_two_pieces_harms_no_request_that_is_admitted_after_its_lift(
    rig, monkeypatch
):
    """Otherwise the older request fills a new pool, and its refill fails for all that wait."""
    monkeypatch.setattr(pieces_module, "PIECE", 1)
    later = []

    def kill_and_lift():
        rig.kill()
        rig.lift()
        later.append(asyncio.create_task(rig.engine.encrypt("acme", "crm", [b"z"])))

    def after_the_first_piece():
        rig.worked = lambda: None
        asyncio.get_running_loop().call_soon(kill_and_lift)

    rig.worked = after_the_first_piece
    assert await refused(rig.engine.encrypt("acme", "crm", [b"x", b"y"])) is Code.TENANT_UNAVAILABLE
    sealed = await later[0]
    assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == [b"z"]


async def test_requests_to_a_core_that_wait_for_room_are_not_sent_after_a_kill(rig):
    (good,) = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    await rig.quiet()
    at = len(record.names("eu", "acme", "crm"))
    many = [good[:at] + n.to_bytes(4, "big") + good[at + 4 :] for n in range(1, 50)]
    rig.wire.gate.clear()
    opening = asyncio.create_task(rig.engine.decrypt("acme", "crm", many))
    while rig.wire.count("unwrap") < REQUESTS_MAX:  # noqa: ASYNC110 - the wire has no event for it
        await asyncio.sleep(0)
    rig.kill()
    rig.lift()
    rig.wire.gate.set()
    assert await refused(opening) is Code.TENANT_UNAVAILABLE
    await rig.quiet()
    assert rig.wire.count("unwrap") == REQUESTS_MAX
    assert rig.live_keys() == []


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_what_a_kill_overtakes_has_no_output_and_leaves_no_key(tmp_path, operation, lifted):
    rig = await Rig.make(tmp_path, cache_keys_max=16)
    sealed = await rig.engine.encrypt("acme", "crm", [b"x", b"y"])
    rig.engine.purge("acme")
    await rig.wire.take_arrivals()
    rig.wire.gate.clear()
    argument = [b"x"] if operation == "encrypt" else sealed.values
    working = asyncio.create_task(getattr(rig.engine, operation)("acme", "crm", argument))
    await rig.wire.arrived.acquire()
    rig.kill()
    if lifted:
        rig.lift()
    rig.wire.gate.set()
    assert await refused(working) is (Code.TENANT_UNAVAILABLE if lifted else Code.TENANT_KILLED)
    await rig.quiet()
    assert rig.live_keys() == []
    assert rig.engine.status().cached_keys == 0
    if lifted:
        assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == [b"x", b"y"]
    else:
        assert await refused(rig.engine.encrypt("acme", "crm", [b"x"])) is Code.TENANT_KILLED


async def test_a_kill_before_the_request_is_even_sent_puts_no_key_anywhere(tmp_path):
    """The Core has not heard of the kill yet, and answers."""
    rig = await Rig.make(tmp_path, cache_keys_max=16)
    first = await rig.engine.encrypt("acme", "crm", [b"x"])
    other = first.values[0].replace(record.parse(first.values[0]).wrapped, bytes(72))
    rig.engine.purge("acme")
    version = len(record.names("eu", "acme", "crm"))
    second = other[:version] + bytes([0, 0, 0, 9]) + other[version + 4 :]
    working = asyncio.create_task(rig.engine.decrypt("acme", "crm", [*first.values, second]))
    for _ in range(3):
        await asyncio.sleep(0)
    rig.kill()
    assert await refused(working) is Code.TENANT_KILLED
    await rig.quiet()
    assert rig.live_keys() == []
    assert rig.engine.status().cached_keys == 0


async def test_a_kill_of_one_tenant_is_nothing_to_another(rig):
    rig.revocations.register(
        Tenant(tenant="bcme", revision=1, link="l", regions=["eu"], region_quorum="all")
    )
    sealed = await rig.engine.encrypt("acme", "crm", [b"x"])
    rig.kill(hold(target="bcme"))
    assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == [b"x"]
