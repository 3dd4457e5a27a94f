"""XAES-256-GCM against the second decoder, on any input."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from kcm_sealing import xaes

from tests.vectors import decoder
from tests.vectors.product import keys as places
from tests.vectors.product import locked, scratch

keys = st.binary(min_size=32, max_size=32).filter(any)
nonces = st.binary(min_size=24, max_size=24)
batches = st.lists(keys, min_size=1, max_size=8)
aads = st.binary(max_size=40)


@given(keys, st.binary(max_size=300), aads, nonces)
def test_seal_and_open_agree(key: bytes, plain: bytes, aad: bytes, nonce: bytes) -> None:
    blob = bytes(xaes.seal(locked(key), plain, aad, nonce, scratch()))
    assert decoder.xaes_open(key, blob, aad) == plain
    out = locked(bytes(len(plain)))
    xaes.open_into(locked(key), blob, aad, out, scratch())
    assert out == plain


@given(keys, batches, aads, nonces)
def test_a_batch_is_plain_blobs(kek: bytes, batch: list[bytes], aad: bytes, nonce: bytes) -> None:
    out = bytearray(72 * len(batch))
    xaes.wrap_batch(locked(kek), places(b"".join(batch)), aad, nonce, memoryview(out), scratch())
    start = int.from_bytes(nonce[12:], "big")
    for position, key in enumerate(batch):
        blob = bytes(out[72 * position : 72 * position + 72])
        counted = ((start + position) % (1 << 96)).to_bytes(12, "big")
        assert blob[:24] == nonce[:12] + counted
        assert decoder.unwrap(kek, blob, aad) == key
        alone = xaes.seal(locked(kek), key, aad, blob[:24], scratch())
        assert alone == blob


@given(keys, st.lists(st.tuples(keys, nonces, st.booleans()), min_size=1, max_size=8), aads)
def test_unwrap_tells_the_bad_ones(
    kek: bytes, rows: list[tuple[bytes, bytes, bool]], aad: bytes
) -> None:
    blobs, expected, bad = b"", b"", []
    for position, (key, nonce, broken) in enumerate(rows):
        blob = xaes.seal(locked(kek), key, aad, nonce, scratch())
        if broken:
            blob[position % 72] ^= 0x40
            bad.append(position)
        blobs += blob
        expected += bytes(32) if broken else key
    out = places(b"\xaa" * (32 * len(rows)))
    assert xaes.unwrap_batch(locked(kek), blobs, aad, out, scratch()) == bad
    assert out.view == expected


@settings(max_examples=200)
@given(keys, st.binary(max_size=120), aads, st.integers(0, 80))
def test_random_bytes_open_nowhere(key: bytes, blob: bytes, aad: bytes, size: int) -> None:
    out = locked(b"\xaa" * size)
    with pytest.raises(InvalidTag):
        xaes.open_into(locked(key), blob, aad, out, scratch())
    assert not any(out)
