"""The engine near the end of a lease: asked anew, done once more, and never an output too late."""

import asyncio

import pytest
from kcm_gateway import pieces as pieces_module
from kcm_gateway.keys.lease import RESERVE_MAX_S
from kcm_schemas import record
from kcm_schemas.codes import Code, KcmError

from tests.unit.gateway_rig import Rig
from tests.unit.test_gateway_core_client_again import LONG_S, own_lease
from tests.unit.test_gateway_engine import quiet

LEASE_S = 10.0
PLAINS = [b"", b"a", b"b" * 100, b"c" * 5000]


@pytest.fixture
async def rig(tmp_path):
    made = await Rig.make(tmp_path)
    yield made
    made.engine.close()


async def refused(awaitable):
    with pytest.raises(KcmError) as info:
        await awaitable
    return info.value


class Pausing:
    """A guard under which the process is paused behind the work, so many times, so long."""

    def __init__(self, rig, times, seconds=LEASE_S, during=lambda: None):
        self._inner, self._rig = rig.guard, rig
        self.times, self.seconds, self.during = times, seconds, during
        rig.engine._guard = self

    def admit(self, tenant):
        return self._inner.admit(tenant)

    def recheck(self, permit):
        if self.times:
            self.times -= 1
            self._rig.clock.now += self.seconds
            self.during()
        return self._inner.recheck(permit)

    def refusal(self, tenant):
        return self._inner.refusal(tenant)


# Once more


@pytest.mark.parametrize("scope", ["record", "batch"])
async def test_an_encryption_that_outlived_its_keys_is_done_once_more_with_others(rig, scope):
    first = await rig.engine.encrypt("acme", "crm", PLAINS, dek_scope=scope)
    seen = {record.parse(value).wrapped for value in first.values}
    Pausing(rig, 1)
    sealed = await rig.engine.encrypt("acme", "crm", PLAINS, dek_scope=scope)
    assert seen.isdisjoint(record.parse(value).wrapped for value in sealed.values)
    assert sealed.lease_s == LEASE_S  # of keys that were asked for after the pause
    assert (await rig.engine.decrypt("acme", "crm", sealed.values)).values == PLAINS


async def test_a_decryption_that_outlived_its_keys_is_done_once_more_with_others(tmp_path):
    rig = await Rig.make(tmp_path, cache_keys_max=16)
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS)).values
    for _ in range(2):
        asked = rig.wire.count("unwrap")
        Pausing(rig, 1)
        opened = await rig.engine.decrypt("acme", "crm", sealed)
        assert (opened.values, opened.codes) == (PLAINS, [])
        assert opened.lease_s == LEASE_S
        assert rig.wire.count("unwrap") > asked
    rig.engine.close()


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_who_is_paused_each_time_has_no_output(rig, operation):
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS)).values
    guard = Pausing(rig, 100)
    argument = PLAINS if operation == "encrypt" else sealed
    error = await refused(getattr(rig.engine, operation)("acme", "crm", argument))
    assert error.code is Code.DEADLINE_EXCEEDED
    assert guard.times == 98


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_what_a_kill_overtakes_in_a_pause_is_not_done_once_more(rig, operation, lifted):
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS)).values

    def during():
        rig.kill()
        if lifted:
            rig.lift()

    Pausing(rig, 1, during=during)
    argument = PLAINS if operation == "encrypt" else sealed
    error = await refused(getattr(rig.engine, operation)("acme", "crm", argument))
    assert error.code is (Code.TENANT_SEALED if lifted else Code.TENANT_KILLED)
    await quiet(rig)
    assert rig.live_keys() == []


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_a_kill_while_it_is_done_once_more_has_no_output_either(rig, operation):
    """It began before the kill: that it was begun anew with other keys changes nothing."""
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS)).values
    await quiet(rig)
    while not rig.wire.arrived.locked():
        await rig.wire.arrived.acquire()
    Pausing(rig, 1, during=rig.wire.gate.clear)
    if operation == "encrypt":
        working = asyncio.create_task(rig.engine.encrypt("acme", "crm", PLAINS))
    else:
        working = asyncio.create_task(rig.engine.decrypt("acme", "crm", sealed))
        await rig.wire.arrived.acquire()
    await rig.wire.arrived.acquire()
    rig.kill()
    rig.lift()
    rig.wire.gate.set()
    assert (await refused(working)).code is Code.TENANT_SEALED
    await quiet(rig)
    assert rig.live_keys() == []


@pytest.mark.parametrize("scope", ["record", "batch"])
async def test_a_call_of_several_pieces_outlives_a_pause(rig, monkeypatch, scope):
    monkeypatch.setattr(pieces_module, "PIECE", 3)
    plains = [bytes([n]) for n in range(10)]
    Pausing(rig, 4, seconds=4.0)
    sealed = await rig.engine.encrypt("acme", "crm", plains, dek_scope=scope)
    assert 0 < sealed.lease_s <= LEASE_S
    headers = [record.parse(value) for value in sealed.values]
    assert len({(header.wrapped, header.index) for header in headers}) == len(plains)
    Pausing(rig, 4, seconds=4.0)
    opened = await rig.engine.decrypt("acme", "crm", sealed.values)
    assert (opened.values, opened.codes) == (plains, [])
    assert 0 < opened.lease_s <= LEASE_S


# Leases that are next to nothing


@pytest.mark.parametrize("operation", ["wrap", "unwrap"])
async def test_everybody_who_waits_for_one_answer_is_served_by_the_next(rig, operation):
    """The Core that answered renewed its own lease a moment too late for them."""
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    rig.engine.purge("acme")
    rig.wire.asked.clear()
    own_lease(rig.core, 0.02)

    def renewed(answer):
        own_lease(rig.core, LONG_S)
        return answer

    rig.wire.after = renewed
    calls = {"wrap": (rig.engine.encrypt, [b"x"]), "unwrap": (rig.engine.decrypt, sealed)}
    work, argument = calls[operation]
    done = await asyncio.gather(*(work("acme", "crm", argument) for _ in range(20)))
    assert {batch.lease_s for batch in done} == {LEASE_S}
    await quiet(rig)
    assert rig.wire.count(operation) <= 3  # the second one brings the keys, the third is ahead


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_when_no_core_has_a_lease_that_lasts_everybody_is_told(rig, operation):
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    await quiet(rig)
    rig.engine.purge("acme")
    rig.wire.asked.clear()
    own_lease(rig.core, 0.02)
    argument = [b"x"] if operation == "encrypt" else sealed
    work = getattr(rig.engine, operation)
    errors = [await refused(work("acme", "crm", argument)) for _ in range(3)]
    assert {error.code for error in errors} == {Code.UNAVAILABLE}
    assert all("lease is about to end" in error.detail for error in errors)
    assert len(rig.wire.asked) == 2 * 3
    own_lease(rig.core, LONG_S)
    await work("acme", "crm", argument)


# The cache


async def test_a_cached_key_in_its_reserve_counts_as_missing_and_is_asked_anew(tmp_path):
    rig = await Rig.make(tmp_path, cache_keys_max=4)
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x", b"y"])).values
    leases = []
    for _ in range(60):
        leases.append((await rig.engine.decrypt("acme", "crm", sealed)).lease_s)
        rig.clock.now += 0.5
    assert min(leases) > RESERVE_MAX_S
    assert rig.wire.count("unwrap") == 4  # 30 s, of which each answer serves 8
    rig.engine.close()


async def test_of_two_answers_with_one_key_the_longer_lease_is_cached(tmp_path):
    rig = await Rig.make(tmp_path, cache_keys_max=4)
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    rig.wire.gate.clear()
    early = asyncio.create_task(rig.engine.decrypt("acme", "crm", sealed))
    await asyncio.sleep(0.01)
    rig.clock.now += 3.0
    late = asyncio.create_task(rig.engine.decrypt("acme", "crm", sealed))
    while rig.wire.count("unwrap") < 2:  # noqa: ASYNC110 - the wire has no event for it
        await asyncio.sleep(0)
    rig.wire.gate.set()
    assert sorted([(await early).lease_s, (await late).lease_s]) == [LEASE_S - 3.0, LEASE_S]
    assert (await rig.engine.decrypt("acme", "crm", sealed)).lease_s == LEASE_S
    assert rig.wire.count("unwrap") == 2
    rig.engine.close()


async def test_cached_keys_are_wiped_when_the_first_of_them_is_too_old(tmp_path):
    """A lease that came later may end sooner."""
    rig = await Rig.make(tmp_path, cache_keys_max=4)
    one, two = (await rig.engine.encrypt("acme", "crm", [b"x", b"y"])).values
    await rig.engine.decrypt("acme", "crm", [one])
    far = rig.engine._opening._timers["acme"].when()
    own_lease(rig.core, 1.0)
    await rig.engine.decrypt("acme", "crm", [two])
    assert rig.engine._opening._timers["acme"].when() < far - 5.0
    rig.clock.now += 0.75
    rig.engine._opening.expire("acme")
    assert len(rig.engine._cache._tenants["acme"].slots) == 1
    rig.engine.close()


async def test_later_pieces_are_opened_with_keys_that_last_as_long_as_those_before(
    tmp_path, monkeypatch
):
    rig = await Rig.make(tmp_path, cache_keys_max=8)
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x", b"y"])).values
    await rig.engine.decrypt("acme", "crm", sealed[1:])
    rig.clock.now += 6.5
    monkeypatch.setattr(pieces_module, "PIECE", 1)
    opened = await rig.engine.decrypt("acme", "crm", sealed)
    assert (opened.values, opened.lease_s) == ([b"x", b"y"], LEASE_S)
    assert (await rig.engine.decrypt("acme", "crm", sealed)).lease_s == LEASE_S
    assert rig.wire.count("unwrap") == 3
    rig.engine.close()
