"""Slots: packed, wiped, and lent again only when no user is left."""

import os
import pickle

import pytest
from kcm_keymem.arena import Purged
from kcm_keymem.slots import ARENA_SIZE, SLOT_SIZE, Slots
from kcm_sealing.session import MEMORY_SIZE


def filled(slots, byte):
    slot = slots.lend()
    with slot.use() as view:
        view[:] = bytes((byte,)) * SLOT_SIZE
    return slot


def test_a_session_fits_into_a_slot():
    assert MEMORY_SIZE <= SLOT_SIZE


def test_ten_thousand_slots_fit_into_the_usual_limit_and_do_not_overlap():
    slots = Slots()
    lent = [filled(slots, number % 251) for number in range(10_000)]
    assert slots.size <= 4 << 20
    for number, slot in enumerate(lent):
        with slot.use() as view:
            assert view == bytes((number % 251,)) * SLOT_SIZE
    slots.close()


def test_a_purged_slot_is_zeros_and_is_lent_again():
    slots = Slots()
    slot = filled(slots, 7)
    with slot.use(8) as view:
        assert len(view) == 8
    slot.purge()
    slot.purge()
    with pytest.raises(Purged), slot.use():
        raise AssertionError
    lent = [slots.lend() for _ in range(ARENA_SIZE // SLOT_SIZE)]
    assert slots.size == ARENA_SIZE, "the purged slot is among them"
    for one in lent:
        with one.use() as view:
            assert view == bytes(SLOT_SIZE)


def test_a_slot_in_use_is_wiped_at_once_and_not_lent_to_another():
    slots = Slots()
    slot = filled(slots, 7)
    view = slot.enter()
    slot.purge()
    assert view == bytes(SLOT_SIZE)
    others = [slots.lend() for _ in range(ARENA_SIZE // SLOT_SIZE)]
    assert slots.size == 2 * ARENA_SIZE
    view[:4] = b"late"
    slot.leave()
    with pytest.raises(Purged):
        slot.check()
    assert len(others) == ARENA_SIZE // SLOT_SIZE
    with slots.lend().use() as again:
        assert again == bytes(SLOT_SIZE), "what was written after the purge is wiped"


def test_an_error_after_a_purge_is_the_purge():
    slot = filled(Slots(), 7)

    def work():
        slot.purge()
        raise ValueError

    with pytest.raises(Purged), slot.use():
        work()


def test_a_forked_child_cannot_use_it():
    slots = Slots()
    slot = filled(slots, 7)
    child = os.fork()
    if not child:
        refused = 0
        for use in (slot.enter, slots.lend):
            try:
                use()
            except Purged:
                refused += 1
        slot.purge()  # does nothing here
        slots.close()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    with slot.use() as view:
        assert view[0] == 7


def test_a_slot_is_not_pickled():
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Slots().lend())
