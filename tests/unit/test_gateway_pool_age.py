"""The age of pooled keys: none within its reserve, young ones in time, old ones wiped."""

import asyncio

import pytest
from kcm_gateway.keys.lease import RESERVE_MAX_S
from kcm_gateway.keys.pool import BATCH
from kcm_schemas import limits
from kcm_schemas.codes import Code

from tests.fakes.virtual import VirtualClock, in_virtual_time, let_pass
from tests.unit.gateway_pool_rig import LEASE_S, Rig, taken
from tests.unit.refusals import refused


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    await made.end()


async def test_keys_end_with_their_lease_counted_from_the_sending(rig):
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.take(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rig.clock.now += 4.0  # the answer takes its time
    rig.core.gate.set()
    first = await taking
    await rig.quiet()  # what was begun after it has a lease of its own
    until = first[0].lease.until
    assert until == rig.clock.now + LEASE_S - 4.0
    rig.pool.done(first)
    rig.clock.now = until - RESERVE_MAX_S - 0.1
    second = await rig.take(1)
    assert second[0].block is first[0].block
    rig.pool.done(second)
    rig.clock.now += 0.1
    third = await rig.take(1)
    assert third[0].block is not first[0].block
    assert third[0].lease.until > until
    rig.pool.done(third)


@in_virtual_time
async def test_keys_that_nobody_asks_for_are_wiped_when_they_are_too_old():
    rig = Rig(clock=VirtualClock())
    segments = await rig.take(1)
    block = segments[0].block
    rig.pool.done(segments)
    await rig.quiet()
    (ahead,) = [one for one in rig.blocks.made if one is not block]
    await let_pass(LEASE_S - RESERVE_MAX_S - 0.1)
    assert rig.pool.available == 2 * BATCH - 1
    await let_pass(0.2)
    assert rig.pool.available == 0
    assert rig.blocks.tenants == []
    for one in (block, ahead):
        with one.use() as keys:
            assert not any(keys.view)


async def test_nothing_is_handed_out_within_the_reserve_of_its_lease(rig):
    for _ in range(100):
        segments = await rig.take(1)
        assert segments[0].lease.until - rig.clock.now > RESERVE_MAX_S
        rig.pool.done(segments)
        await rig.quiet()
        rig.clock.now += 0.7


async def test_a_pool_of_which_little_is_used_has_young_keys_before_the_old_ones_go(rig):
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    asked = len(rig.core.sizes)
    rig.clock.now += LEASE_S / 2 - 0.1
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    assert len(rig.core.sizes) == asked
    rig.clock.now += 0.1
    rig.pool.done(await rig.take(1))  # the half is over: they are replaced, and used meanwhile
    await rig.quiet()
    assert len(rig.core.sizes) == asked + 1
    rig.clock.now += 3.0
    rig.core.gate.clear()  # no Core answers any more, and nobody has to wait for one
    segments = await asyncio.wait_for(rig.take(1), 1.0)
    assert segments[0].lease.until - rig.clock.now == LEASE_S - 3.0
    rig.pool.done(segments)


async def test_a_steady_pool_never_makes_anybody_wait_for_keys(rig):
    """26 keys a second use up a batch in just a lease."""
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    for rate in (1, 26, 1000):
        for _ in range(20 * rate if rate < 1000 else 2 * rate):
            taking = rig.take(1)
            with pytest.raises(StopIteration) as done:
                taking.send(None)  # at once, without a turn of the loop
            assert done.value.value[0].lease.until - rig.clock.now > RESERVE_MAX_S
            rig.pool.done(done.value.value)
            await rig.quiet()
            rig.clock.now += 1 / rate


async def test_keys_that_become_too_old_while_more_are_awaited_are_taken_anew_once(rig):
    segments = await rig.take(1)
    old = segments[0].block
    rig.pool.done(segments)
    await rig.quiet()
    old_keys = rig.pool.available
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.take(old_keys + 1))
    for _ in range(5):
        await asyncio.sleep(0)
    rig.clock.now += LEASE_S - RESERVE_MAX_S - 0.5  # what is under way is as old as it may be
    rig.core.lease_s = LEASE_S * 2
    for _ in range(3):
        await asyncio.sleep(0)
    rig.clock.now += 0.5
    rig.core.gate.set()
    assert await refused(taking) is Code.UNAVAILABLE  # the refill itself came as late
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.take(2 * limits.KEYS_MAX))
    for _ in range(5):
        await asyncio.sleep(0)
    rig.clock.now += LEASE_S
    rig.core.gate.set()
    segments = await taking
    assert sum(segment.count for segment in segments) == 2 * limits.KEYS_MAX
    assert all(rig.clock.now < segment.lease.begin_until for segment in segments)
    assert all(segment.block is not old for segment in segments)
    assert len({blob for _, blob in taken(segments)}) == 2 * limits.KEYS_MAX
    rig.pool.done(segments)


@pytest.mark.parametrize("lease_s", [0.0, 0.001, 0.09])
async def test_keys_that_come_with_next_to_no_lease_are_not_handed_out(rig, lease_s):
    rig.core.lease_s = lease_s
    taking = [asyncio.create_task(rig.take(1)) for _ in range(3)]
    for one in taking:
        assert await refused(one) is Code.UNAVAILABLE
    await rig.quiet()
    assert rig.blocks.tenants == []


async def test_the_batch_that_ends_first_is_used_first_and_wiped_in_time(rig):
    rig.pool.done(await rig.take(BATCH - 1))
    rig.core.lease_s = 1.0
    await rig.quiet()
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    segments = await rig.take(1)
    assert segments[0].lease.until - segments[0].lease.sent == 1.0
    rig.pool.done(segments)
    rig.clock.now += 0.75
    rig.pool.expire()
    left = await rig.take(rig.pool.available)
    assert all(rig.clock.now < segment.lease.young_until for segment in left)
    rig.pool.done(left)


async def test_who_needs_keys_that_last_gets_them_if_there_are_any(rig):
    rig.core.lease_s = 4.0
    rig.pool.done(await rig.take(1))
    await rig.quiet()
    rig.core.lease_s = LEASE_S
    lease_until = rig.clock.now + 8.0
    for segments in [await rig.take(3, lease_until), await rig.take(5, lease_until)]:
        assert {segment.lease.until >= lease_until for segment in segments} == {True}
        rig.pool.done(segments)
    segments = await rig.take(1, lease_until + 1000)  # no Core gives such: any will do
    assert segments
    rig.pool.done(segments)


async def test_old_keys_make_room_for_what_replaces_them(rig):
    for _ in range(100):
        rig.pool.done(await rig.take(1))
        await rig.quiet()
        assert rig.pool.available <= 2 * BATCH
        rig.clock.now += 0.5
    assert len(rig.core.sizes) <= 2 + 50 * 2 / (LEASE_S - RESERVE_MAX_S)  # two for each such time
