"""Blocks in slabs: few pieces to wipe, whatever a tenant holds, and nobody else's keys in them."""

import ctypes
from itertools import pairwise

import pytest
from kcm_gateway.keys.blocks import SLAB_BYTES, TENANT_BYTES_MAX, Blocks
from kcm_gateway.keys.release import POOLS_AT_ONCE, DeferredRelease
from kcm_keymem.arena import Purged, ScratchPool
from kcm_schemas.codes import Code, KcmError

KEYS = 256
PLACE = 8192
"""Bytes of a block of that many keys."""


def fill(block, byte=b"x"):
    with block.use() as keys:
        keys.view[:] = byte * len(keys.view)


def wiped(arena):
    with arena.use() as view:
        return not any(view)


class Memory(ScratchPool):
    """Production's memory, with a list of all pieces that were taken."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def take(self, size):
        self.taken.append(super().take(size))
        return self.taken[-1]

    def arenas(self, *blocks):
        """The pieces of memory in which blocks lie; none of them was purged yet."""
        found = set()
        for block in blocks:
            at = place(block)
            (one,) = {arena for arena in self.taken if at in span(arena)}
            found.add(one)
        return found


def address(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def place(block):
    """The address of a block's keys."""
    with block.use() as keys:
        return address(keys.view)


def span(arena):
    """The addresses of a piece of memory; empty after a purge."""
    try:
        with arena.use() as view:
            return range(address(view), address(view) + len(view))
    except Purged:
        return range(0)


def mapped(pieces):
    """Those whose memory the system has not got back."""
    return {arena for arena in pieces if arena.mapped}


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def blocks(memory):
    return Blocks(memory)


def test_many_blocks_lie_in_few_pieces_of_memory(blocks, memory):
    made = [blocks.make("acme", KEYS) for _ in range(4000)]
    pieces = memory.taken
    assert sum(arena.size for arena in pieces) <= 4000 * PLACE + SLAB_BYTES
    assert len(pieces) <= 4000 * PLACE // SLAB_BYTES + 10
    places = sorted(map(place, made))
    assert all(later - earlier >= PLACE for earlier, later in pairwise(places))
    assert blocks.purge("acme") == 4000 * KEYS


def test_a_tenant_with_one_block_takes_no_more_than_that(blocks, memory):
    blocks.make("acme", KEYS)
    assert [arena.size for arena in memory.taken] == [PLACE]


def test_every_key_is_wiped_when_a_purge_returns_and_memory_follows_later(blocks, memory):
    made = [blocks.make("acme", count) for count in (1, KEYS, 1024) for _ in range(40)]
    other = blocks.make("bcme", KEYS)
    for block in (*made, other):
        fill(block)
    views = [block.keys().view for block in made]
    pieces = memory.arenas(*made)
    assert blocks.purge("acme") == 40 * (1 + KEYS + 1024)
    assert not any(any(view) for view in views)
    assert mapped(pieces) == pieces
    assert all(block.purged for block in made)
    for block in made:
        with pytest.raises(Purged), block.use():
            pass
        blocks.release(block)
    with other.use() as keys:
        assert set(keys.view) == {ord("x")}
    del views
    while blocks.reap(2):
        pass
    assert mapped(pieces) == set()
    assert blocks.tenants == ["bcme"]


def test_a_purge_under_a_use_wipes_and_the_memory_stays_until_the_use_ends(blocks, memory):
    block = blocks.make("acme", KEYS)
    fill(block)
    block.enter()
    keys = block.keys()
    blocks.purge("acme")
    assert not blocks.reap(9)
    assert not any(keys.view)
    assert mapped(memory.taken) == set(memory.taken)
    block.leave()
    assert mapped(memory.taken) == set()


def test_a_place_comes_back_wiped_and_tenants_share_no_slab(blocks, memory):
    kept = [blocks.make("acme", KEYS) for _ in range(7)]
    block = blocks.make("acme", KEYS)
    at = place(block)
    fill(block)
    blocks.release(block)
    again = blocks.make("acme", KEYS)
    assert place(again) == at
    with again.use() as keys:
        assert not any(keys.view)
    others = memory.arenas(blocks.make("bcme", KEYS))
    assert not memory.arenas(again, *kept) & others


def test_a_place_that_somebody_still_uses_is_nobody_elses(blocks):
    first = blocks.make("acme", KEYS)
    lost = blocks.make("acme", KEYS)
    blocks.make("acme", KEYS)
    lost = blocks.make("acme", KEYS)
    at = place(lost)
    with lost.use() as keys:
        keys.view[:] = b"x" * len(keys.view)
        blocks.release(lost)
        assert not any(keys.view)
        assert at not in [place(blocks.make("acme", KEYS)) for _ in range(9)]
    assert not first.purged


def test_what_one_tenant_holds_is_bounded_and_comes_free_again(blocks):
    made = [blocks.make("acme", 1024) for _ in range(TENANT_BYTES_MAX // (1024 * 32))]
    with pytest.raises(KcmError) as info:
        blocks.make("acme", 1024)
    assert info.value.code is Code.BUSY
    blocks.make("bcme", 1024)
    blocks.release(made.pop())
    blocks.make("acme", 1024)


def test_everything_released_leaves_nothing(blocks, memory):
    made = [blocks.make("acme", KEYS) for _ in range(100)]
    pieces = memory.arenas(*made)
    for block in made:
        fill(block)
        blocks.release(block)
    assert blocks.tenants == []
    assert all(arena.purged or wiped(arena) for arena in pieces)


class Pool:
    """A pool that notes when it was cleared."""

    def __init__(self, cleared):
        self.cleared = cleared

    def clear(self):
        self.cleared.append(self)


async def test_a_purge_clears_few_pools_and_unmaps_nothing_before_others_had_their_turn(
    blocks, memory
):
    cleared = []
    pieces = memory.arenas(*[blocks.make("acme", KEYS) for _ in range(200)])
    clearing = DeferredRelease(blocks)
    blocks.purge("acme")
    clearing.later([Pool(cleared) for _ in range(100)])
    assert (len(cleared), mapped(pieces)) == (POOLS_AT_ONCE, pieces)
    clearing.finish()
    assert len(cleared) == 100
    assert mapped(pieces) == set()


def test_without_a_loop_nothing_is_left():
    cleared = []
    DeferredRelease(Blocks()).later([Pool(cleared)])
    assert len(cleared) == 1


def test_what_is_written_after_a_purge_is_wiped_by_who_wrote_it(blocks, memory):
    """An answer was under way. Another request of the tenant waits for long in the same slab."""
    made = [blocks.make("acme", KEYS) for _ in range(4)]
    first, other = made[2:]
    assert len(memory.arenas(first, other)) == 1
    waits, answered = other.use(), first.use()
    waits.__enter__()
    keys = answered.__enter__()
    blocks.purge("acme")
    while blocks.reap(2):
        pass
    keys.view[:] = b"K" * len(keys.view)
    with pytest.raises(Purged):
        answered.__exit__(None, None, None)
    assert not any(keys.view)
    with pytest.raises(Purged):
        waits.__exit__(None, None, None)
