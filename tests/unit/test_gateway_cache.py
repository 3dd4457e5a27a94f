"""The optional cache of unwrapped keys: bounded, within the lease, and empty at its end."""

import asyncio

from kcm_gateway import pieces as pieces_module
from kcm_gateway.keys.lease import RESERVE_MAX_S

from tests.fakes.virtual import VirtualClock, in_virtual_time, let_pass
from tests.unit.gateway_rig import Rig
from tests.unit.test_gateway_core_client_again import own_lease

LEASE_S = 10.0


@in_virtual_time
async def test_the_cache_serves_within_the_lease_and_is_emptied_at_its_end(tmp_path):
    rig = await Rig.make(tmp_path, clock=VirtualClock(), cache_keys_max=4)
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x", b"y"])).values
    for _ in range(3):
        assert (await rig.engine.decrypt("acme", "crm", sealed)).values == [b"x", b"y"]
    assert rig.wire.count("unwrap") == 1
    (cached,) = [block for block in rig.live_keys() if block.count == 4]
    await let_pass(LEASE_S - RESERVE_MAX_S - 0.1)
    assert rig.engine.status().cached_keys == 2
    await let_pass(0.2)
    assert rig.engine.status().cached_keys == 0
    with cached.use() as keys:
        assert not any(keys.view)
    assert (await rig.engine.decrypt("acme", "crm", sealed)).values == [b"x", b"y"]
    assert rig.wire.count("unwrap") == 2
    rig.engine.purge("acme")
    await rig.engine.decrypt("acme", "crm", sealed)
    assert rig.wire.count("unwrap") == 3
    rig.engine.close()


async def test_the_cache_makes_room_and_never_answers_with_anothers_key(tmp_path):
    rig = await Rig.make(tmp_path, cache_keys_max=3)
    plains = [bytes([n]) * 20 for n in range(8)]
    sealed = (await rig.engine.encrypt("acme", "crm", plains)).values
    for at in (0, 3, 5, 2, 0, 4):
        part = sealed[at : at + 3]
        assert (await rig.engine.decrypt("acme", "crm", part)).values == plains[at : at + 3]
    assert rig.engine.status().cached_keys == 3
    rig.engine.close()


async def test_without_a_cache_every_decryption_asks(tmp_path):
    rig = await Rig.make(tmp_path)
    sealed = (await rig.engine.encrypt("acme", "crm", [b"x"])).values
    for _ in range(3):
        await rig.engine.decrypt("acme", "crm", sealed)
    assert rig.wire.count("unwrap") == 3
    rig.engine.close()


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


@in_virtual_time
async def test_cached_keys_are_wiped_when_the_first_of_them_is_too_old(tmp_path):
    """A lease that came later may end sooner."""
    rig = await Rig.make(tmp_path, clock=VirtualClock(), cache_keys_max=4)
    one, two = (await rig.engine.encrypt("acme", "crm", [b"x", b"y"])).values
    await rig.engine.decrypt("acme", "crm", [one])
    own_lease(rig.core, 1.0)
    await rig.engine.decrypt("acme", "crm", [two])
    await let_pass(0.7)
    assert rig.engine.status().cached_keys == 2
    await let_pass(0.1)
    assert rig.engine.status().cached_keys == 1
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
