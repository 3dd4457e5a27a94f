"""Arenas: purge at once, unmap when unused, and never hand out what a purge overtook."""

from __future__ import annotations

import ctypes
import gc
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena, Keys, Purged, ScratchPool
from kcm_keymem.pages import PAGE, fill_random
from kcm_sealing.memory import wipe


def address_of(arena: Arena) -> int:
    with arena.use() as view:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))


def mapped(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < end:
            return True
    return False


@contextmanager
def filled(size: int = PAGE) -> Iterator[Arena]:
    arena = Arena(size)
    with arena.use() as view:
        fill_random(view)
    yield arena
    arena.purge()


def test_a_purge_during_use_overwrites_at_once_and_unmaps_at_the_end() -> None:
    with filled() as arena:
        address = address_of(arena)
        view = arena.enter()
        assert any(view)
        arena.purge()
        assert not any(view)
        assert mapped(address)
        arena.leave()
        assert not mapped(address)


def test_every_user_keeps_the_pages() -> None:
    with filled() as arena:
        address = address_of(arena)
        arena.enter()
        arena.enter()
        arena.purge()
        arena.leave()
        assert mapped(address)
        arena.leave()
        assert not mapped(address)


def test_leaving_after_a_purge_raises() -> None:
    with filled() as arena, pytest.raises(Purged), arena.use():
        arena.purge()


def test_what_fails_over_wiped_keys_is_a_purge() -> None:
    with filled() as arena, pytest.raises(Purged), arena.use():  # noqa: PT012 - both are the case
        arena.purge()
        raise InvalidTag


def test_what_fails_over_keys_that_are_there_is_itself() -> None:
    with filled() as arena:
        address = address_of(arena)
        with pytest.raises(InvalidTag), arena.use():
            raise InvalidTag
        arena.purge()
        assert not mapped(address)


def test_entering_after_a_purge_raises() -> None:
    with filled() as arena:
        arena.purge()
        assert arena.purged
        with pytest.raises(Purged):
            arena.enter()
        with pytest.raises(Purged), arena.use():
            pytest.fail("the block was entered")


def test_purge_is_idempotent_and_never_touches_the_next_arena() -> None:
    with filled() as first:
        first.purge()
        with filled() as second:
            first.purge()
            first.__del__()
            with second.use() as view:
                assert any(view)


def test_purges_from_many_threads_unmap_once() -> None:
    for _ in range(50):
        with filled() as arena:
            address = address_of(arena)
            start = threading.Barrier(4)

            def purge(arena: Arena = arena, start: threading.Barrier = start) -> None:
                start.wait()
                arena.purge()

            threads = [threading.Thread(target=purge) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not mapped(address)


def test_a_forgotten_arena_is_unmapped() -> None:
    before = Path("/proc/self/maps").read_text(encoding="utf-8").count("\n")
    for _ in range(50):
        Arena()
    gc.collect()
    after = Path("/proc/self/maps").read_text(encoding="utf-8").count("\n")
    assert after < before + 50


def test_a_view_that_was_never_given_back_keeps_its_pages_and_shows_zeros() -> None:
    arena = Arena()
    view = arena.enter()
    fill_random(view)
    del arena
    gc.collect()
    with filled():
        assert not any(view)


def test_no_memory_leaves_nothing_half_made() -> None:
    with pytest.raises(MemoryError):
        Arena(1 << 60)
    gc.collect()  # an error in __del__ would fail the test as a warning


def test_keys_do_not_become_bytes_text_or_pickles() -> None:
    with filled() as arena:
        with pytest.raises(TypeError):
            bytes(arena)
        with pytest.raises(TypeError):
            pickle.dumps(arena)
        assert repr(arena) == f"<Arena {PAGE} bytes>"
        arena.purge()
        assert repr(arena) == f"<Arena {PAGE} bytes, purged>"


def test_scratch_comes_as_zeros_and_is_kept() -> None:
    pool = ScratchPool()
    with pool.borrow(100) as view:
        assert len(view) == 100
        assert not any(view)
        fill_random(view)
    with pool.borrow(200) as again:
        assert not any(again)
    assert pool.idle == 1


def test_scratch_lent_twice_is_two() -> None:
    pool = ScratchPool()
    with pool.borrow(32) as one, pool.borrow(32) as two:
        fill_random(one)
        assert not any(two)


def test_scratch_is_wiped_when_its_user_fails() -> None:
    pool = ScratchPool()
    with pytest.raises(InvalidTag), pool.borrow(32) as view:  # noqa: PT012 - both are the case
        fill_random(view)
        raise InvalidTag
    with pool.borrow(32) as again:
        assert not any(again)


def test_scratch_keeps_few() -> None:
    pool = ScratchPool()
    arenas = [pool.take(32) for _ in range(pool.KEEP + 3)]
    addresses = [address_of(arena) for arena in arenas]
    for arena in arenas:
        pool.give_back(arena)
    assert sum(map(mapped, addresses)) == pool.KEEP == pool.idle
    assert all(arena.purged for arena in arenas[pool.KEEP :])


def test_scratch_that_was_purged_is_not_lent_again() -> None:
    pool = ScratchPool()
    arena = pool.take(32)
    arena.purge()
    pool.give_back(arena)
    assert not pool.take(32).purged


def test_scratch_that_is_in_use_is_not_lent_again() -> None:
    pool = ScratchPool()
    arena = pool.take(32)
    arena.enter()
    pool.give_back(arena)
    assert pool.take(32) is not arena
    arena.leave()


@pytest.mark.parametrize(
    ("size", "rounded"), [(1, 1), (PAGE, 1), (PAGE + 1, 2), (3 * PAGE, 4), (5 * PAGE, 8)]
)
def test_scratch_is_rounded_to_few_sizes(size: int, rounded: int) -> None:
    arena = ScratchPool().take(size)
    assert arena.size == rounded * PAGE


def test_wipe_overwrites_its_slice_only() -> None:
    data = bytearray(b"\xff" * 64)
    wipe(memoryview(data)[16:48])
    assert data == b"\xff" * 16 + bytes(32) + b"\xff" * 16
    wipe(memoryview(data)[:0])


def test_keys_are_cut_once_and_lent_by_parts() -> None:
    arena = Arena()
    with arena.use_keys(3, 2) as keys:
        fill_random(keys.view)
        assert [bytes(key) for key in keys.each] == [
            bytes(keys.view[at : at + 32]) for at in (0, 32, 64)
        ]
        assert len(keys) == 3
        assert not any(arena.keys(2).view)
        assert arena.keys(1, 2).each[0] is keys.part(0, 1).each[0]
    arena.purge()
    with pytest.raises(ValueError, match="32 bytes"):
        Keys.of(memoryview(bytearray(33)))


def test_keys_that_are_purged_under_their_user_have_no_output() -> None:
    arena = Arena()
    with pytest.raises(Purged), arena.use_keys(2) as keys:  # noqa: PT012 - both are the case
        fill_random(keys.view)
        arena.purge()
        assert not any(keys.view)
    with pytest.raises(Purged), arena.use_keys(2):
        pass


def test_borrowed_keys_come_as_zeros_and_are_wiped() -> None:
    pool = ScratchPool()
    with pool.borrow_keys(200) as keys:
        assert len(keys) == 200
        fill_random(keys.view)
    with pool.borrow_keys(200) as again:
        assert not any(again.view)
    assert pool.idle == 1
