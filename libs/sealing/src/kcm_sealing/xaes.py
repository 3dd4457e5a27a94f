"""XAES-256-GCM (C2SP): AES-256-GCM with 192-bit nonces, so that many writers can use random nonces.

From a key K and the first 12 bytes N of the nonce, the KDF in counter mode of NIST SP 800-108r1
derives a key, with CMAC as its PRF, a counter of 16 bits and no length (C2SP, XAES-256-GCM):

    Kx = CMAC(K, 00 01 'X' 00 || N) || CMAC(K, 00 02 'X' 00 || N)

AES-256-GCM then seals the message under Kx with the last 12 bytes of the nonce.

A batch of wraps shares N and counts in the last 12 bytes, modulo 2**96, from a random start. So one
derivation serves the batch, and every blob stays a plain XAES-256-GCM ciphertext.

Keys, plaintexts and derived keys stay in the caller's locked memory. ``decrypt_into`` leaves real
plaintext in its output when the tag is wrong, so the output is wiped on every failure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from kcm_schemas.limits import KEY_SIZE, NONCE_SIZE, PREFIX_SIZE, TAG_SIZE, WRAPPED_SIZE

from kcm_sealing.memory import KeyColumn, wipe

Buffer: TypeAlias = bytes | bytearray | memoryview

SCRATCH_SIZE: Final = KEY_SIZE
"""Bytes of locked memory that a derivation needs."""

BATCH_MAX: Final = 1 << 16
"""Keys under one nonce prefix: with more, a repeated nonce would be likelier than with independent
random nonces."""

_HALF: Final = PREFIX_SIZE
_DOMAIN: Final = b"X\x00"
_COUNTER_SIZE: Final = 2

_RUN: Final = re.compile(rb"(?s)(.{12}).{60}(?:\1.{60})*+")
"""Adjacent wrapped keys that share the first half of their nonces: usually the whole batch."""

_REST: Final = struct.Struct(f"{_HALF}x{_HALF}s{KEY_SIZE + TAG_SIZE}s")
"""A wrapped key after the first half of its nonce: second half, then ciphertext and tag."""

_NO_KEY: Final = re.compile(rb"\0\0{31}")
"""As many zeros as a key has bytes, at any offset; the search skips to a first zero."""


def derive(key: memoryview, nonce_start: bytes, scratch: memoryview) -> AESGCM:
    """Return the AES-256-GCM cipher of ``key`` for nonces that start with ``nonce_start``.

    ``key`` has 32 bytes and ``nonce_start`` 12. ``scratch`` is locked memory of ``SCRATCH_SIZE``
    bytes, which is wiped before this returns. Raises ``ValueError`` for wrong sizes and for a key
    of all zeros: such a key was purged or never generated, and it is no secret.
    """
    if len(key) != KEY_SIZE or len(nonce_start) != _HALF or len(scratch) < SCRATCH_SIZE:
        raise ValueError(
            f"key, nonce start and scratch have {len(key)}, {len(nonce_start)} and {len(scratch)}"
            f" bytes, not {KEY_SIZE}, {_HALF} and {SCRATCH_SIZE}"
        )
    if not any(key):
        raise ValueError("the key is all zeros")
    derived = scratch[:SCRATCH_SIZE]
    try:
        KBKDFCMAC(
            algorithms.AES,
            Mode.CounterMode,
            KEY_SIZE,
            _COUNTER_SIZE,
            None,
            CounterLocation.BeforeFixed,
            None,
            None,
            _DOMAIN + nonce_start,
        ).derive_into(key, derived)
        return AESGCM(derived)
    finally:
        wipe(derived)


def seal(
    key: memoryview, plaintext: Buffer, aad: bytes, nonce: bytes, scratch: memoryview
) -> bytearray:
    """Return ``nonce || ciphertext || tag``; ``nonce`` has 24 bytes. Raises ``ValueError``."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    size = memoryview(plaintext).nbytes
    out = bytearray(NONCE_SIZE + size + TAG_SIZE)
    out[:NONCE_SIZE] = nonce
    cipher = derive(key, nonce[:_HALF], scratch)
    cipher.encrypt_into(nonce[_HALF:], plaintext, aad, memoryview(out)[NONCE_SIZE:])
    return out


def open_into(
    key: memoryview, blob: Buffer, aad: bytes, out: memoryview, scratch: memoryview
) -> None:
    """Open ``blob`` into exactly ``out``; on failure wipes ``out`` and raises ``InvalidTag``."""
    view = memoryview(blob)
    if len(view) != NONCE_SIZE + len(out) + TAG_SIZE:
        wipe(out)
        raise InvalidTag
    nonce = bytes(view[:NONCE_SIZE])
    try:
        derive(key, nonce[:_HALF], scratch).decrypt_into(nonce[_HALF:], view[NONCE_SIZE:], aad, out)
    except BaseException:
        wipe(out)
        raise


def wrap_batch(
    key: memoryview, keys: KeyColumn, aad: bytes, nonce: bytes, out: memoryview, scratch: memoryview
) -> None:
    """Wrap n ``keys`` into ``out`` (n times 72 bytes), counting from ``nonce``.

    ``nonce`` is 24 fresh random bytes. Raises ``ValueError`` for wrong sizes and for a key of all
    zeros, which only a failed generator makes.
    """
    count = len(keys)
    if not 0 < count <= BATCH_MAX or len(out) != count * WRAPPED_SIZE:
        raise ValueError(f"{count} wrapped keys do not fit {len(out)} bytes, or exceed {BATCH_MAX}")
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    if _zeros(keys):
        raise ValueError("a key is all zeros")
    start = nonce[:_HALF]
    counter = int.from_bytes(nonce[_HALF:], "big")
    encrypt = derive(key, start, scratch).encrypt
    blobs = []
    for position, one in enumerate(keys.each, counter):
        tail = (position & 0xFFFFFFFFFFFFFFFFFFFFFFFF).to_bytes(_HALF, "big")
        blobs.append(start + tail + encrypt(tail, one, aad))
    out[:] = b"".join(blobs)


def unwrap_batch(
    key: memoryview, blobs: Buffer, aad: bytes, out: KeyColumn, scratch: memoryview
) -> list[int]:
    """Unwrap ``blobs`` (n times 72 bytes) into ``out``, which has room for n keys.

    Returns the positions that do not authenticate or that contain a key of all zeros; ``out`` has
    zeros there. Costs one derivation for each different nonce prefix. Raises ``ValueError`` for
    wrong sizes.
    """
    view = memoryview(blobs)
    count, rest = divmod(len(view), WRAPPED_SIZE)
    if rest or len(out) != count:
        raise ValueError(f"{len(view)} bytes of wrapped keys do not fit {len(out)} keys")
    try:
        _unwrap_each(key, view, aad, out, scratch)
    except BaseException:
        wipe(out.view)
        raise
    return _zeros(out)


def count_prefixes(blobs: Buffer) -> int:
    """Return how many derivations an unwrap of ``blobs`` (n times 72 bytes) costs."""
    return len({run[1] for run in _RUN.finditer(blobs)})


def _unwrap_each(
    key: memoryview, blobs: memoryview, aad: bytes, out: KeyColumn, scratch: memoryview
) -> None:
    """Unwrap each key; write zeros for one that does not authenticate."""
    ciphers: dict[bytes, Callable[[bytes, bytes, bytes, memoryview], int]] = {}
    for run in _RUN.finditer(blobs):
        start, (at, end) = run[1], run.span()
        if start not in ciphers:
            ciphers[start] = derive(key, start, scratch).decrypt_into
        decrypt = ciphers[start]
        places = out.each[at // WRAPPED_SIZE : end // WRAPPED_SIZE]
        for (tail, body), place in zip(_REST.iter_unpack(blobs[at:end]), places, strict=True):
            try:
                decrypt(tail, body, aad, place)
            except InvalidTag:
                wipe(place)


def _zeros(keys: KeyColumn) -> list[int]:
    """Return the positions of all-zero keys; one search over the column usually finds none."""
    if not _NO_KEY.search(keys.view):
        return []
    return [i for i, one in enumerate(keys.each) if not any(one)]
