"""XAES-256-GCM: batches, refusals, and what is left behind."""

from __future__ import annotations

import os

import pytest
from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Keys
from kcm_schemas import limits
from kcm_sealing import xaes

from tests.vectors import decoder
from tests.vectors.packed import Refused

SIZE = limits.WRAPPED_SIZE
AAD = b"where it belongs"


def locked(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def places(data: bytes) -> Keys:
    return Keys.of(locked(data))


def scratch() -> memoryview:
    return locked(b"\xaa" * xaes.SCRATCH_SIZE)


def wrap(kek: bytes, keys: bytes, nonce: bytes, aad: bytes = AAD) -> bytes:
    out = bytearray(len(keys) // 32 * SIZE)
    xaes.wrap_batch(locked(kek), places(keys), aad, nonce, memoryview(out), scratch())
    return bytes(out)


def unwrap(kek: bytes, blobs: bytes, aad: bytes = AAD) -> tuple[bytes, list[int]]:
    out = places(b"\xaa" * (len(blobs) // SIZE * 32))
    bad = xaes.unwrap_batch(locked(kek), blobs, aad, out, scratch())
    return out.view.tobytes(), bad


def test_the_counter_wraps_modulo_2_96() -> None:
    kek, keys, start = os.urandom(32), os.urandom(4 * 32), os.urandom(12)
    blobs = wrap(kek, keys, start + b"\xff" * 11 + b"\xfe")
    tails = [blobs[at + 12 : at + 24] for at in range(0, len(blobs), SIZE)]
    assert tails == [
        b"\xff" * 11 + b"\xfe",
        b"\xff" * 12,
        bytes(12),
        bytes(11) + b"\x01",
    ]
    assert all(blobs[at : at + 12] == start for at in range(0, len(blobs), SIZE))
    assert unwrap(kek, blobs) == (keys, [])
    for at in range(4):
        blob = blobs[at * SIZE : (at + 1) * SIZE]
        assert decoder.unwrap(kek, blob, AAD) == keys[at * 32 : (at + 1) * 32]


def test_mixed_prefixes_open_in_one_batch_and_bad_positions_are_zeros() -> None:
    kek, keys = os.urandom(32), [os.urandom(32) for _ in range(6)]
    blobs = [wrap(kek, key, os.urandom(24)) for key in keys]
    blobs[3:] = [
        wrap(kek, b"".join(keys[3:]), os.urandom(24))[at : at + SIZE] for at in (0, SIZE, 2 * SIZE)
    ]
    for position, at in ((1, 0), (2, 40), (4, SIZE - 1)):
        broken = bytearray(blobs[position])
        broken[at] ^= 1
        blobs[position] = bytes(broken)
    opened, bad = unwrap(kek, b"".join(blobs))
    assert bad == [1, 2, 4]
    for position, key in enumerate(keys):
        expected = bytes(32) if position in bad else key
        assert opened[position * 32 : position * 32 + 32] == expected


def test_a_prefix_counts_wherever_it_stands() -> None:
    kek, ours, theirs = os.urandom(32), os.urandom(64), os.urandom(64)
    a, b = wrap(kek, ours, os.urandom(24)), wrap(kek, theirs, os.urandom(24))
    mixed = a[:SIZE] + b[:SIZE] + a[SIZE:] + b[SIZE:]
    opened = ours[:32] + theirs[:32] + ours[32:] + theirs[32:]
    assert unwrap(kek, mixed) == (opened, [])
    assert [xaes.count_prefixes(blobs) for blobs in (a, a + b, mixed, b"")] == [1, 2, 2, 0]


def test_a_blob_whose_prefix_was_changed_opens_under_no_neighbours() -> None:
    kek, keys = os.urandom(32), os.urandom(3 * 32)
    blobs = wrap(kek, keys, os.urandom(24))
    for prefix in (os.urandom(12), bytes(12), b"\n" * 12):
        changed = blobs[:SIZE] + prefix + blobs[SIZE + 12 :]
        assert unwrap(kek, changed) == (keys[:32] + bytes(32) + keys[64:], [1])
    other = wrap(kek, os.urandom(32), os.urandom(24))
    moved = other + other[:12] + blobs[12:]
    assert unwrap(kek, moved)[1] == [1]


def test_every_bit_of_a_wrapped_key_counts() -> None:
    kek = os.urandom(32)
    blob = wrap(kek, os.urandom(32), os.urandom(24))
    for bit in range(8 * SIZE):
        broken = bytearray(blob)
        broken[bit // 8] ^= 1 << bit % 8
        assert unwrap(kek, bytes(broken)) == (bytes(32), [0])


def test_a_key_of_zeros_is_neither_wrapped_nor_unwrapped_nor_used() -> None:
    kek, zeros = os.urandom(32), bytes(32)
    with pytest.raises(ValueError, match="zeros"):
        wrap(kek, os.urandom(32) + zeros, os.urandom(24))
    sealed = bytes(xaes.seal(locked(kek), zeros, AAD, os.urandom(24), scratch()))
    assert unwrap(kek, sealed) == (zeros, [0])
    with pytest.raises(ValueError, match="zeros"):
        wrap(zeros, os.urandom(32), os.urandom(24))
    with pytest.raises(ValueError, match="zeros"):
        xaes.seal(locked(zeros), b"payload", AAD, os.urandom(24), scratch())
    with pytest.raises(ValueError, match="zeros"):
        unwrap(zeros, sealed)
    out = locked(b"\xaa" * 32)
    with pytest.raises(ValueError, match="zeros"):
        xaes.open_into(locked(zeros), sealed, AAD, out, scratch())
    assert not any(out)


@pytest.mark.parametrize("size", [0, 8, 12, 20, 23, 25, 48])
def test_a_nonce_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="nonce"):
        wrap(os.urandom(32), os.urandom(32), os.urandom(size))
    with pytest.raises(ValueError, match="nonce"):
        xaes.seal(locked(os.urandom(32)), b"payload", AAD, os.urandom(size), scratch())


@pytest.mark.parametrize(
    ("kek", "keys", "out"),
    [(31, 32, 72), (33, 32, 72), (32, 31, 72), (32, 0, 0), (32, 32, 71), (32, 64, 72)],
)
def test_sizes_that_do_not_fit_are_refused(kek: int, keys: int, out: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        xaes.wrap_batch(
            locked(os.urandom(kek)),
            places(os.urandom(keys)),
            AAD,
            os.urandom(24),
            locked(bytes(out)),
            scratch(),
        )


def test_a_batch_has_a_bound() -> None:
    count = xaes.BATCH_MAX + 1
    with pytest.raises(ValueError, match="65536"):
        wrap(os.urandom(32), b"\x01" * 32 * count, os.urandom(24))


@pytest.mark.parametrize(("blobs", "out"), [(71, 32), (72, 0), (144, 32), (72, 64), (73, 32)])
def test_unwrap_refuses_sizes_that_do_not_fit(blobs: int, out: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        xaes.unwrap_batch(locked(os.urandom(32)), bytes(blobs), AAD, places(bytes(out)), scratch())


def test_scratch_is_wiped_and_has_to_be_large_enough() -> None:
    used = scratch()
    xaes.seal(locked(os.urandom(32)), b"payload", AAD, os.urandom(24), used)
    assert not any(used)
    with pytest.raises(ValueError, match="scratch"):
        xaes.seal(locked(os.urandom(32)), b"payload", AAD, os.urandom(24), used[1:])


@pytest.mark.parametrize("size", [0, 39, 40, 71, 73])
def test_what_does_not_open_leaves_zeros(size: int) -> None:
    out = locked(b"\xaa" * 32)
    with pytest.raises(InvalidTag):
        xaes.open_into(locked(os.urandom(32)), os.urandom(size), AAD, out, scratch())
    assert not any(out)


def test_a_wrong_tag_leaves_zeros() -> None:
    kek = os.urandom(32)
    sealed = xaes.seal(locked(kek), b"secret", AAD, os.urandom(24), scratch())
    sealed[-1] ^= 1
    out = locked(b"\xaa" * 6)
    with pytest.raises(InvalidTag):
        xaes.open_into(locked(kek), bytes(sealed), AAD, out, scratch())
    assert not any(out)
    with pytest.raises(Refused):
        decoder.xaes_open(kek, bytes(sealed), AAD)


def test_an_interrupted_unwrap_leaves_zeros() -> None:
    kek = os.urandom(32)
    blobs = wrap(kek, os.urandom(32), os.urandom(24)) + wrap(kek, os.urandom(32), os.urandom(24))
    out = places(b"\xaa" * 64)

    class Interrupting(bytes):
        reads = 0

        def __len__(self) -> int:
            # The second derivation asks for the key's length again.
            type(self).reads += 1
            if type(self).reads > 1:
                raise KeyboardInterrupt
            return super().__len__()

    with pytest.raises(KeyboardInterrupt):
        xaes.unwrap_batch(Interrupting(kek), blobs, AAD, out, scratch())  # type: ignore[arg-type]
    assert not any(out.view)
