"""A page of keys: what makes room, and what must never come out of it."""

import pytest
from kcm_core.keys.keyring import SLOTS, Keyring, RootName, ServiceName
from kcm_keymem.arena import Purged


def fill(ring, name, byte):
    with ring.use() as keys, keys.place(name) as place:
        place[:] = bytes([byte]) * 32


def read(ring, name):
    with ring.use() as keys:
        return bytes(keys.key(name))


def full():
    ring = Keyring(0)
    fill(ring, RootName(1), 255)
    for number in range(1, SLOTS):
        fill(ring, ServiceName("s", number), number)
    return ring


def test_every_key_has_a_place_of_its_own():
    ring = full()
    assert len(ring) == SLOTS
    assert [read(ring, ServiceName("s", n))[0] for n in range(1, SLOTS)] == list(range(1, SLOTS))
    assert read(ring, RootName(1)) == b"\xff" * 32


def test_the_service_key_not_used_for_longest_makes_room_and_no_root_does():
    ring = full()
    read(ring, ServiceName("s", 1))
    fill(ring, ServiceName("new", 1), 7)
    assert ServiceName("s", 2) not in ring
    assert ServiceName("s", 1) in ring
    assert RootName(1) in ring
    assert read(ring, ServiceName("new", 1)) == b"\x07" * 32


def test_a_page_full_of_roots_still_takes_a_key():
    ring = Keyring(0)
    for number in range(SLOTS):
        fill(ring, RootName(number), 1)
    read(ring, RootName(0))
    fill(ring, ServiceName("s", 1), 2)
    assert RootName(1) not in ring
    assert RootName(0) in ring


def test_a_place_that_could_not_be_filled_is_wiped_and_free_again():
    ring = Keyring(0)

    def fail():
        with ring.use() as keys, keys.place(RootName(1)) as place:
            place[:] = b"\xaa" * 32
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert RootName(1) not in ring
    for number in range(SLOTS):  # one of them gets the place of the key that failed
        with ring.use() as keys, keys.place(ServiceName("s", number)) as place:
            assert not any(place)
    assert len(ring) == SLOTS


def test_a_name_that_is_filled_again_takes_no_second_place():
    ring = full()
    for _ in range(3):
        fill(ring, RootName(1), 9)
    assert len(ring) == SLOTS
    assert read(ring, RootName(1)) == b"\x09" * 32


def test_a_purge_under_somebodys_hands_leaves_nothing_and_no_output():
    ring, seen = full(), []

    def overtaken():
        with ring.use() as keys:
            view = keys.key(ServiceName("s", 3))
            seen.append(ring.purge())
            seen.append(any(view))

    with pytest.raises(Purged):
        overtaken()
    assert seen == [SLOTS, False]
    assert len(ring) == 0
    assert ring.purged
    with pytest.raises(Purged):
        read(ring, RootName(1))
