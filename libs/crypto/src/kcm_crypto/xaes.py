"""XAES-256-GCM (C2SP): AES-256-GCM with 192-bit nonces, so random nonces are safe for many writers.

From a key K and the first 12 bytes N of the nonce, a key is derived as NIST SP 800-108r1 describes
with CMAC, counted in two blocks (C2SP, XAES-256-GCM):

    L  = AES-256(K, 0^128);  K1 = L << 1, xor 0x87 when the top bit of L was set
    M1 = 00 01 'X' 00 || N;  M2 = 00 02 'X' 00 || N
    Kx = AES-256(K, M1 xor K1) || AES-256(K, M2 xor K1)

and the message is sealed with AES-256-GCM under Kx and the last 12 bytes of the nonce.

A batch of wraps shares N and counts in the last 12 bytes, modulo 2**96, from a random start: the
derivation costs once, and every blob stays a plain XAES-256-GCM ciphertext.

Keys, plaintexts and derived keys stay in the caller's locked memory. ``decrypt_into`` leaves real
plaintext behind when the tag is wrong, so the output is wiped on every failure.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kcm_crypto.memory import wipe

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
WRAPPED_SIZE: Final = NONCE_SIZE + KEY_SIZE + TAG_SIZE
SCRATCH_SIZE: Final = 192
"""Bytes of locked memory that a derivation needs."""

BATCH_MAX: Final = 1 << 16
"""Keys under one shared nonce prefix: keeps the chance of a repeated nonce as low as with
independent ones."""

_HALF: Final = 12
_ZEROS: Final = bytes(16)
_DOMAIN: Final = (b"\x00\x01X\x00", b"\x00\x02X\x00")


def derive(key: memoryview, nonce_start: bytes, scratch: memoryview) -> AESGCM:
    """The AES-256-GCM cipher of ``key`` (32 bytes) for nonces that start with ``nonce_start`` (12).

    ``scratch`` is locked memory of ``SCRATCH_SIZE`` bytes and is wiped before this returns. Raises
    ``ValueError`` for sizes that do not fit and for a key of all zeros: that is one that was purged
    or never made, and everybody knows it.
    """
    if len(key) != KEY_SIZE or len(nonce_start) != _HALF or len(scratch) < SCRATCH_SIZE:
        raise ValueError("a key has 32 bytes, the start of a nonce 12, and scratch 192")
    if not any(key):
        raise ValueError("a key of all zeros")
    try:
        block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305 - CMAC's own use of the block cipher
        block.update_into(_ZEROS, scratch[0:31])
        _double(scratch[0:16])
        for part, domain in enumerate(_DOMAIN):
            at = 32 + 16 * part
            for i, byte in enumerate(domain + nonce_start):
                scratch[at + i] = byte ^ scratch[i]
        block.update_into(scratch[32:64], scratch[64:111])
        return AESGCM(scratch[64:96])
    finally:
        wipe(scratch[:SCRATCH_SIZE])


def _double(block: memoryview) -> None:
    """Multiply by x in GF(2**128), in place (NIST SP 800-38B, subkey generation)."""
    carry = block[0] >> 7
    for i in range(15):
        block[i] = (block[i] << 1 & 0xFF) | (block[i + 1] >> 7)
    block[15] = (block[15] << 1 & 0xFF) ^ (0x87 * carry)


def seal(
    key: memoryview, plaintext: Buffer, aad: bytes, nonce: bytes, scratch: memoryview
) -> bytearray:
    """``nonce`` (24 bytes) ``|| ciphertext || tag``."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError("a nonce has 24 bytes")
    size = memoryview(plaintext).nbytes
    out = bytearray(NONCE_SIZE + size + TAG_SIZE)
    out[:NONCE_SIZE] = nonce
    cipher = derive(key, nonce[:_HALF], scratch)
    cipher.encrypt_into(nonce[_HALF:], plaintext, aad, memoryview(out)[NONCE_SIZE:])
    return out


def open_into(
    key: memoryview, blob: Buffer, aad: bytes, out: memoryview, scratch: memoryview
) -> None:
    """Open ``blob`` into exactly ``out``; on any failure wipes it and raises ``InvalidTag``."""
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
    key: memoryview,
    keys: memoryview,
    aad: bytes,
    nonce: bytes,
    out: memoryview,
    scratch: memoryview,
) -> None:
    """Wrap ``keys`` (n times 32 bytes) into ``out`` (n times 72 bytes), counting from ``nonce``.

    ``nonce`` is 24 fresh random bytes. Raises ``ValueError`` for sizes that do not fit and for a
    key of all zeros, which no generator makes and a failed one does.
    """
    count, rest = divmod(len(keys), KEY_SIZE)
    if rest or not 0 < count <= BATCH_MAX or len(out) != count * WRAPPED_SIZE:
        raise ValueError("keys have 32 bytes, wrapped keys 72, and a batch at most 65536 of them")
    if len(nonce) != NONCE_SIZE:
        raise ValueError("a nonce has 24 bytes")
    start = nonce[:_HALF]
    counter = int.from_bytes(nonce[_HALF:], "big")
    encrypt_into = derive(key, start, scratch).encrypt_into
    at = to = 0
    for position in range(counter, counter + count):
        tail = (position & 0xFFFFFFFFFFFFFFFFFFFFFFFF).to_bytes(_HALF, "big")
        plain = keys[at : at + KEY_SIZE]
        if not any(plain):
            raise ValueError("a key of all zeros")
        out[to : to + NONCE_SIZE] = start + tail
        encrypt_into(tail, plain, aad, out[to + NONCE_SIZE : to + WRAPPED_SIZE])
        at += KEY_SIZE
        to += WRAPPED_SIZE


def unwrap_batch(
    key: memoryview, blobs: Buffer, aad: bytes, out: memoryview, scratch: memoryview
) -> list[int]:
    """Unwrap ``blobs`` (n times 72 bytes) into ``out`` (n times 32 bytes).

    Returns the positions that do not authenticate, or that hold a key of all zeros; their places in
    ``out`` are zeros. Costs one derivation for each different nonce prefix.
    """
    view = memoryview(blobs)
    count, rest = divmod(len(view), WRAPPED_SIZE)
    if rest or len(out) != count * KEY_SIZE:
        raise ValueError("a wrapped key has 72 bytes, a key 32")
    try:
        return _unwrap_each(key, view.tobytes(), aad, out, scratch)
    except BaseException:
        wipe(out)
        raise


def _unwrap_each(
    key: memoryview, raw: bytes, aad: bytes, out: memoryview, scratch: memoryview
) -> list[int]:
    ciphers: dict[bytes, AESGCM] = {}
    bad = []
    at = 0
    for position in range(len(raw) // WRAPPED_SIZE):
        start = raw[at : at + _HALF]
        cipher = ciphers.get(start)
        if cipher is None:
            cipher = ciphers[start] = derive(key, start, scratch)
        plain = out[position * KEY_SIZE : (position + 1) * KEY_SIZE]
        end = at + WRAPPED_SIZE
        try:
            cipher.decrypt_into(
                raw[at + _HALF : at + NONCE_SIZE], raw[at + NONCE_SIZE : end], aad, plain
            )
        except InvalidTag:
            wipe(plain)
        if not any(plain):
            bad.append(position)
        at = end
    return bad
