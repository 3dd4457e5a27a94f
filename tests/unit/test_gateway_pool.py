"""The pool: no key twice, none beyond a purge, and as many as the load requires."""

import asyncio

import pytest
from kcm_gateway.keys.pool import AHEAD_S, BATCH, REFILLS_AHEAD, REFILLS_MAX
from kcm_keymem.arena import Purged
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from tests.unit.gateway_pool_rig import Rig, taken
from tests.unit.refusals import refused


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    await made.end()


async def test_no_key_leaves_the_pool_twice_whatever_becomes_of_it(rig):
    seen = []

    async def use(count, index):
        segments = await rig.take(count)
        seen.extend(taken(segments))
        if index % 3:
            await asyncio.sleep(0)
        rig.pool.done(segments)

    async def give_up(count):
        task = asyncio.create_task(rig.take(count))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            seen.extend(taken(task.result()))
            rig.pool.done(task.result())

    await asyncio.gather(
        *(use(1 + index * 7 % 300, index) for index in range(60)),
        *(give_up(1 + index * 11 % 600) for index in range(20)),
    )
    assert len({key for key, _ in seen}) == len({blob for _, blob in seen}) == len(seen)
    assert len({bytes(32)} & {key for key, _ in seen}) == 0


async def test_used_keys_are_wiped_and_their_neighbours_are_not(rig):
    first = await rig.take(2)
    second = await rig.take(2)
    kept = taken(second)
    rig.pool.done(first)
    block = second[0].block
    with block.use() as keys:
        assert not any(keys.view[: 2 * 32])
    assert taken(second) == kept
    rig.pool.done(second)


async def test_a_purge_during_a_refill_leaves_no_key(rig):
    rig.core.gate.clear()
    taking = [asyncio.create_task(rig.take(5)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    rig.purge()
    rig.core.gate.set()
    for one in taking:
        with pytest.raises(Purged):
            await one
    await rig.quiet()
    assert rig.pool.available == 0
    assert rig.blocks.tenants == []


async def test_who_waits_for_a_refill_that_came_just_before_a_purge_starts_no_other(rig):
    taking = asyncio.create_task(rig.take(5))
    while not rig.pool.available:  # noqa: ASYNC110 - the moment in between has no event
        await asyncio.sleep(0)
    assert not taking.done()
    rig.purge()
    with pytest.raises(Purged):
        await taking
    await rig.quiet()
    assert len(rig.core.sizes) == 1
    assert rig.blocks.tenants == []


async def test_a_refill_that_hears_of_no_cancellation_leaves_no_key_either(rig):
    """``asyncio.wait_for`` of Python 3.11 may swallow one."""
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.take(5))
    for _ in range(3):
        await asyncio.sleep(0)
    rig.generation += 1
    rig.core.gate.set()
    assert await refused(taking) is Code.TENANT_KILLED
    assert rig.pool.available == 0
    assert rig.blocks.tenants == []


async def test_segments_in_use_during_a_purge_are_given_back_once(rig):
    segments = await rig.take(BATCH + 10)
    rig.purge()
    rig.pool.done(segments)
    assert all(segment.block.holders <= 0 or segment.block.purged for segment in segments)
    assert rig.blocks.tenants == []
    await rig.quiet()
    again = await rig.take(1)
    assert not again[0].block.purged
    rig.pool.done(again)


async def test_errors_reach_everybody_who_waits_and_then_it_is_tried_again(rig):
    rig.core.gate.clear()
    rig.core.error = KcmError(Code.TENANT_UNAVAILABLE, "asleep")
    taking = [asyncio.create_task(rig.take(1)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    rig.core.gate.set()
    results = await asyncio.gather(*taking, return_exceptions=True)
    assert [error.code for error in results] == [Code.TENANT_UNAVAILABLE] * 3
    assert len({id(error) for error in results}) == 3  # no shared traceback, no shared frames
    assert rig.pool.idle
    rig.core.error = None
    rig.pool.done(await rig.take(1))


async def test_a_killed_tenant_gets_no_refill(rig):
    rig.killed = True
    assert await refused(rig.take(1)) is Code.TENANT_KILLED
    assert rig.core.sizes == []


async def test_the_pool_follows_the_load_up_and_down(rig):
    assert rig.pool.target == BATCH
    for _ in range(40):
        rig.clock.now += 0.1
        rig.pool.done(await rig.take(1000))
        await rig.quiet()
    busy = rig.pool.target
    assert busy == pytest.approx(10_000 * AHEAD_S, rel=0.3)
    assert rig.pool.available >= busy - REFILLS_MAX * BATCH
    for _ in range(40):
        rig.clock.now += 1.0
        rig.pool.done(await rig.take(1))
        await rig.quiet()
    assert rig.pool.target == BATCH


async def test_a_pool_with_little_to_do_asks_for_few_keys(rig):
    for _ in range(4 * BATCH):
        rig.clock.now += 1.0
        rig.pool.done(await rig.take(1))
        await rig.quiet()
        assert rig.pool.available <= 2 * BATCH
    assert set(rig.core.sizes) == {BATCH}


async def test_the_busier_a_pool_is_the_more_keys_a_refill_brings_up_to_a_request(rig):
    for rate in (5000, 20_000):
        rig.core.sizes.clear()
        for _ in range(40):
            rig.clock.now += 0.1
            for _ in range(10):
                rig.pool.done(await rig.take(rate // 100))
                await rig.quiet()
        share = rate * AHEAD_S / REFILLS_AHEAD
        expected = min(-(-int(share) // BATCH) * BATCH, limits.KEYS_MAX)
        assert rig.core.sizes[-1] == pytest.approx(expected, abs=BATCH)
        assert rig.pool.available <= rig.pool.target + rig.core.sizes[-1]
    assert rig.core.sizes[-1] == limits.KEYS_MAX
    for _ in range(40):
        rig.clock.now += 1.0
        rig.pool.done(await rig.take(300))
        await rig.quiet()
    assert rig.core.sizes[-1] == BATCH


async def test_who_needs_many_keys_at_once_gets_them_in_one_refill(rig):
    segments = await rig.take(limits.KEYS_MAX - 100)
    assert rig.core.sizes == [limits.KEYS_MAX]
    assert len(segments) == 1
    rig.pool.done(segments)
    await rig.quiet()
    assert rig.pool.available <= 2 * BATCH


async def test_the_pool_stays_below_its_bounds():
    rig = Rig(keys_max=512)
    rig.core.gate.clear()
    taking = [asyncio.create_task(rig.take(100)) for _ in range(20)]
    for _ in range(5):
        rig.clock.now += 0.1
        await asyncio.sleep(0)
    assert rig.pool.refills <= REFILLS_MAX
    rig.core.gate.set()
    for segments in await asyncio.gather(*taking):
        rig.pool.done(segments)
    await rig.quiet()
    assert rig.pool.target <= 512
    assert rig.pool.available <= 512 + REFILLS_MAX * BATCH
    rig.purge()


async def test_keys_of_an_old_version_keep_their_version(rig):
    old = await rig.take(1)
    rig.core.version = 2
    rest = await rig.take(BATCH)
    assert [segment.lease.l3_version for segment in old + rest] == [1, 1, 2]
    rig.pool.done(old + rest)
