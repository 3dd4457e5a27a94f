"""The pool: no key twice, none beyond its lease or a purge, and as many as the load asks for."""

import asyncio

import pytest
from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.lease import RESERVE_MAX_S, Lease
from kcm_gateway.keys.pool import AHEAD_S, BATCH, REFILLS_AHEAD, REFILLS_MAX, KeyPool
from kcm_keymem.arena import Purged
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.control_lease import FOREVER
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from tests.fakes.bus import Clock

LEASE_S = 10.0


class Core:
    """Wraps by numbering; ``gate`` holds answers, ``error`` is raised instead."""

    def __init__(self, clock):
        self.clock = clock
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None
        self.sizes = []
        self.wrapped = 0
        self.version = 1
        self.lease_s = LEASE_S

    async def wrap(self, tenant, service, purpose, keys):
        self.sizes.append(len(keys) // 32)
        sent = self.clock.elapsed()
        until = sent + self.lease_s
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        blobs = []
        for _ in range(len(keys) // 32):
            self.wrapped += 1
            blobs.append(self.wrapped.to_bytes(72, "big"))
        return Lease(self.version, sent, until), b"".join(blobs)


class Guard:
    generation = 0
    killed = False

    def admit(self, tenant):
        if self.killed:
            raise KcmError(Code.TENANT_KILLED)
        return Permit(tenant, self.generation, FOREVER)

    def recheck(self, permit):
        if self.killed or permit.generation != self.generation:
            raise KcmError(Code.TENANT_KILLED)
        return FOREVER


class Rig:
    def __init__(self, keys_max=8192):
        self.clock, self.guard, self.blocks = Clock(), Guard(), Blocks()
        self.core = Core(self.clock)
        self.pool = KeyPool(
            "acme", "crm", core=self.core, guard=self.guard, blocks=self.blocks, clock=self.clock,
            randomness=SystemKeyRandomness(), keys_max=keys_max,
        )  # fmt: skip

    def purge(self):
        self.guard.generation += 1
        self.blocks.purge("acme")
        self.pool.clear()

    async def quiet(self):
        while self.pool._refills:
            await asyncio.wait(self.pool._refills)
            await asyncio.sleep(0)


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    made.core.gate.set()
    await made.quiet()
    made.purge()


def taken(segments):
    """Each key with its wrapped form, as they are used."""
    out = []
    for segment in segments:
        with segment.use() as keys:
            for key, (blob,) in zip(keys.each, segment.blobs(), strict=True):
                out.append((bytes(key), bytes(blob)))
    return out


async def refused(awaitable):
    with pytest.raises(KcmError) as info:
        await awaitable
    return info.value.code


async def test_no_key_leaves_the_pool_twice_whatever_becomes_of_it(rig):
    seen = []

    async def use(count, index):
        segments = await rig.pool.take(count)
        seen.extend(taken(segments))
        if index % 3:
            await asyncio.sleep(0)
        rig.pool.done(segments)

    async def give_up(count):
        task = asyncio.create_task(rig.pool.take(count))
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
    first = await rig.pool.take(2)
    second = await rig.pool.take(2)
    kept = taken(second)
    rig.pool.done(first)
    block = second[0].block
    with block.use() as keys:
        assert not any(keys.view[: 2 * 32])
    assert taken(second) == kept
    rig.pool.done(second)


async def test_keys_end_with_their_lease_counted_from_the_sending(rig):
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.pool.take(1))
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
    second = await rig.pool.take(1)
    assert second[0].block is first[0].block
    rig.pool.done(second)
    rig.clock.now += 0.1
    third = await rig.pool.take(1)
    assert third[0].block is not first[0].block
    assert third[0].lease.until > until
    rig.pool.done(third)


async def test_keys_that_nobody_asks_for_are_wiped_when_they_are_too_old(rig):
    rig.pool.done(await rig.pool.take(1))
    block = rig.pool._stock._batches[0].block
    assert rig.pool._timer is not None
    rig.pool.expire()
    assert rig.pool.available == BATCH - 1
    rig.clock.now += LEASE_S - RESERVE_MAX_S
    arena = block._slab.arena
    rig.pool.expire()
    assert rig.pool.available == 0
    assert rig.blocks.tenants == []
    with arena.use() as memory:
        assert not any(memory)
    assert rig.pool._timer is None


# Age


async def test_nothing_is_handed_out_within_the_reserve_of_its_lease(rig):
    for _ in range(100):
        segments = await rig.pool.take(1)
        assert segments[0].lease.until - rig.clock.now > RESERVE_MAX_S
        rig.pool.done(segments)
        await rig.quiet()
        rig.clock.now += 0.7


async def test_a_pool_of_which_little_is_used_has_young_keys_before_the_old_ones_go(rig):
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    asked = len(rig.core.sizes)
    rig.clock.now += LEASE_S / 2 - 0.1
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    assert len(rig.core.sizes) == asked
    rig.clock.now += 0.1
    rig.pool.done(await rig.pool.take(1))  # the half is over: they are replaced, and used meanwhile
    await rig.quiet()
    assert len(rig.core.sizes) == asked + 1
    rig.clock.now += 3.0
    rig.core.gate.clear()  # no Core answers any more, and nobody has to wait for one
    segments = await asyncio.wait_for(rig.pool.take(1), 1.0)
    assert segments[0].lease.until - rig.clock.now == LEASE_S - 3.0
    rig.pool.done(segments)


async def test_a_steady_pool_never_makes_anybody_wait_for_keys(rig):
    """26 keys a second use up a batch in just a lease."""
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    for rate in (1, 26, 1000):
        for _ in range(20 * rate if rate < 1000 else 2 * rate):
            taking = rig.pool.take(1)
            with pytest.raises(StopIteration) as done:
                taking.send(None)  # at once, without a turn of the loop
            assert done.value.value[0].lease.until - rig.clock.now > RESERVE_MAX_S
            rig.pool.done(done.value.value)
            await rig.quiet()
            rig.clock.now += 1 / rate


async def test_keys_that_become_too_old_while_more_are_awaited_are_taken_anew_once(rig):
    rig.pool.done(await rig.pool.take(1))
    old = rig.pool._stock._batches[0].block
    await rig.quiet()
    old_keys = rig.pool.available
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.pool.take(old_keys + 1))
    for _ in range(5):
        await asyncio.sleep(0)
    rig.clock.now += LEASE_S - RESERVE_MAX_S - 0.5  # what is under way is as old as it may be
    rig.core.lease_s = LEASE_S * 2
    for _ in range(3):
        await asyncio.sleep(0)
    rig.clock.now += 0.5
    rig.core.gate.set()
    assert await refused(taking) is Code.UNAVAILABLE  # the refill itself came as late
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    rig.core.gate.clear()
    taking = asyncio.create_task(rig.pool.take(2 * limits.KEYS_MAX))
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
    taking = [asyncio.create_task(rig.pool.take(1)) for _ in range(3)]
    for one in taking:
        assert await refused(one) is Code.UNAVAILABLE
    await rig.quiet()
    assert rig.blocks.tenants == []


async def test_the_batch_that_ends_first_is_used_first_and_wiped_in_time(rig):
    rig.pool.done(await rig.pool.take(BATCH - 1))
    rig.core.lease_s = 1.0
    await rig.quiet()
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    segments = await rig.pool.take(1)
    assert segments[0].lease.until - segments[0].lease.sent == 1.0
    rig.pool.done(segments)
    rig.clock.now += 0.75
    rig.pool.expire()
    left = rig.pool.available
    assert rig.pool._stock.young(rig.clock.now) == left


async def test_who_needs_keys_that_last_gets_them_if_there_are_any(rig):
    rig.core.lease_s = 4.0
    rig.pool.done(await rig.pool.take(1))
    await rig.quiet()
    rig.core.lease_s = LEASE_S
    lasting = rig.clock.now + 8.0
    for segments in [await rig.pool.take(3, lasting), await rig.pool.take(5, lasting)]:
        assert {segment.lease.until >= lasting for segment in segments} == {True}
        rig.pool.done(segments)
    segments = await rig.pool.take(1, lasting + 1000)  # no Core gives such: any will do
    assert segments
    rig.pool.done(segments)


async def test_old_keys_make_room_for_what_replaces_them(rig):
    for _ in range(100):
        rig.pool.done(await rig.pool.take(1))
        await rig.quiet()
        assert rig.pool.available <= 2 * BATCH
        rig.clock.now += 0.5
    assert len(rig.core.sizes) <= 2 + 50 * 2 / (LEASE_S - RESERVE_MAX_S)  # two for each such time


async def test_a_purge_during_a_refill_leaves_no_key(rig):
    rig.core.gate.clear()
    taking = [asyncio.create_task(rig.pool.take(5)) for _ in range(3)]
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
    taking = asyncio.create_task(rig.pool.take(5))
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
    taking = asyncio.create_task(rig.pool.take(5))
    for _ in range(3):
        await asyncio.sleep(0)
    rig.guard.generation += 1
    rig.core.gate.set()
    assert await refused(taking) is Code.TENANT_KILLED
    assert rig.pool.available == 0
    assert rig.blocks.tenants == []


async def test_segments_in_use_during_a_purge_are_given_back_once(rig):
    segments = await rig.pool.take(BATCH + 10)
    rig.purge()
    rig.pool.done(segments)
    assert all(segment.block.holders <= 0 or segment.block.purged for segment in segments)
    assert rig.blocks.tenants == []
    await rig.quiet()
    again = await rig.pool.take(1)
    assert not again[0].block.purged
    rig.pool.done(again)


async def test_errors_reach_everybody_who_waits_and_then_it_is_tried_again(rig):
    rig.core.gate.clear()
    rig.core.error = KcmError(Code.TENANT_SEALED, "asleep")
    taking = [asyncio.create_task(rig.pool.take(1)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    rig.core.gate.set()
    results = await asyncio.gather(*taking, return_exceptions=True)
    assert [error.code for error in results] == [Code.TENANT_SEALED] * 3
    assert len({id(error) for error in results}) == 3  # no shared traceback, no shared frames
    assert rig.pool.idle
    rig.core.error = None
    rig.pool.done(await rig.pool.take(1))


async def test_a_killed_tenant_gets_no_refill(rig):
    rig.guard.killed = True
    assert await refused(rig.pool.take(1)) is Code.TENANT_KILLED
    assert rig.core.sizes == []


async def test_the_pool_follows_the_load_up_and_down(rig):
    assert rig.pool.target == BATCH
    for _ in range(40):
        rig.clock.now += 0.1
        rig.pool.done(await rig.pool.take(1000))
        await rig.quiet()
    busy = rig.pool.target
    assert busy == pytest.approx(10_000 * AHEAD_S, rel=0.3)
    assert rig.pool.available >= busy - REFILLS_MAX * BATCH
    for _ in range(40):
        rig.clock.now += 1.0
        rig.pool.done(await rig.pool.take(1))
        await rig.quiet()
    assert rig.pool.target == BATCH


async def test_a_pool_with_little_to_do_asks_for_few_keys(rig):
    for _ in range(4 * BATCH):
        rig.clock.now += 1.0
        rig.pool.done(await rig.pool.take(1))
        await rig.quiet()
        assert rig.pool.available <= 2 * BATCH
    assert set(rig.core.sizes) == {BATCH}


async def test_the_busier_a_pool_is_the_more_keys_a_refill_brings_up_to_a_request(rig):
    for rate in (5000, 20_000):
        rig.core.sizes.clear()
        for _ in range(40):
            rig.clock.now += 0.1
            for _ in range(10):
                rig.pool.done(await rig.pool.take(rate // 100))
                await rig.quiet()
        share = rate * AHEAD_S / REFILLS_AHEAD
        expected = min(-(-int(share) // BATCH) * BATCH, limits.KEYS_MAX)
        assert rig.core.sizes[-1] == pytest.approx(expected, abs=BATCH)
        assert rig.pool.available <= rig.pool.target + rig.core.sizes[-1]
    assert rig.core.sizes[-1] == limits.KEYS_MAX
    for _ in range(40):
        rig.clock.now += 1.0
        rig.pool.done(await rig.pool.take(300))
        await rig.quiet()
    assert rig.core.sizes[-1] == BATCH


async def test_who_needs_many_keys_at_once_gets_them_in_one_refill(rig):
    segments = await rig.pool.take(limits.KEYS_MAX - 100)
    assert rig.core.sizes == [limits.KEYS_MAX]
    assert len(segments) == 1
    rig.pool.done(segments)
    await rig.quiet()
    assert rig.pool.available <= 2 * BATCH


async def test_the_pool_stays_below_its_bounds():
    rig = Rig(keys_max=512)
    rig.core.gate.clear()
    taking = [asyncio.create_task(rig.pool.take(100)) for _ in range(20)]
    for _ in range(5):
        rig.clock.now += 0.1
        await asyncio.sleep(0)
    assert len(rig.pool._refills) <= REFILLS_MAX
    rig.core.gate.set()
    for segments in await asyncio.gather(*taking):
        rig.pool.done(segments)
    await rig.quiet()
    assert rig.pool.target <= 512
    assert rig.pool.available <= 512 + REFILLS_MAX * BATCH
    rig.purge()


async def test_keys_of_an_old_version_keep_their_version(rig):
    old = await rig.pool.take(1)
    rig.core.version = 2
    rest = await rig.pool.take(BATCH)
    assert [segment.lease.l3_version for segment in old + rest] == [1, 1, 2]
    rig.pool.done(old + rest)
