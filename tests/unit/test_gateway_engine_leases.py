"""The engine near the end of a lease: asked anew, done once more, and never an output too late."""

import asyncio

import pytest
from kcm_gateway import pieces as pieces_module
from kcm_schemas import record
from kcm_schemas.codes import Code

from tests.unit.gateway_rig import Rig
from tests.unit.refusals import refusal, refused
from tests.unit.test_gateway_core_client_again import LONG_S, own_lease

LEASE_S = 10.0
PLAINS = [b"", b"a", b"b" * 100, b"c" * 5000]


@pytest.fixture
async def rig(tmp_path):
    made = await Rig.make(tmp_path)
    yield made
    made.engine.close()


class Pausing:
    """The process is paused after its work and before the check: so many times, for so long."""

    def __init__(self, rig, times, seconds=LEASE_S, during=lambda: None):
        self._rig, self._has_worked = rig, False
        self.times, self.seconds, self.during = times, seconds, during
        rig.worked = self._work
        rig.admission.before_recheck = self._pause

    def _work(self):
        self._has_worked = True

    def _pause(self):
        worked, self._has_worked = self._has_worked, False
        if worked and self.times:
            self.times -= 1
            self._rig.clock.now += self.seconds
            self.during()


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
    pausing = Pausing(rig, 100)
    argument = PLAINS if operation == "encrypt" else sealed
    error = await refusal(getattr(rig.engine, operation)("acme", "crm", argument))
    assert error.code is Code.DEADLINE_EXCEEDED
    assert pausing.times == 98


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
    error = await refusal(getattr(rig.engine, operation)("acme", "crm", argument))
    assert error.code is (Code.TENANT_UNAVAILABLE if lifted else Code.TENANT_KILLED)
    await rig.quiet()
    assert rig.live_keys() == []


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_a_kill_while_it_is_done_once_more_has_no_output_either(rig, operation):
    """It began before the kill: that it was begun anew with other keys changes nothing."""
    sealed = (await rig.engine.encrypt("acme", "crm", PLAINS)).values
    await rig.quiet()
    await rig.wire.take_arrivals()
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
    assert await refused(working) is Code.TENANT_UNAVAILABLE
    await rig.quiet()
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
    await rig.quiet()
    assert rig.wire.count(operation) <= 3  # the second one brings the keys, the third is ahead


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_when_no_core_has_a_lease_that_lasts_everybody_is_told(rig, operation):
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    await rig.quiet()
    rig.engine.purge("acme")
    rig.wire.asked.clear()
    own_lease(rig.core, 0.02)
    argument = [b"x"] if operation == "encrypt" else sealed
    work = getattr(rig.engine, operation)
    errors = [await refusal(work("acme", "crm", argument)) for _ in range(3)]
    assert {error.code for error in errors} == {Code.UNAVAILABLE}
    assert all("lease is about to end" in error.detail for error in errors)
    assert len(rig.wire.asked) == 2 * 3
    own_lease(rig.core, LONG_S)
    await work("acme", "crm", argument)
