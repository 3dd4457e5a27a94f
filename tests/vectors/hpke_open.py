"""HPKE (RFC 9180) with MLKEM768-X25519, opened step by step: the second decoder's own.

Only ML-KEM, X25519, HMAC and AES-GCM are a library's.
"""

from __future__ import annotations

import hmac
from hashlib import sha3_256, sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.packed import Refused

SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")
"""KEM MLKEM768-X25519, KDF HKDF-SHA256, AEAD AES-256-GCM."""

COMBINER = bytes.fromhex("5c2e2f2f5e5c")
"""The label of the combiner, which is a drawing: backslash, dot, slash, slash, caret, backslash."""

MLKEM_SIZE, ENCAPSULATED = 1088, 1088 + 32


def decapsulate(secret: bytes, encapsulated: bytes) -> bytes:
    """The shared secret of both parts, bound to the X25519 half of what was sent."""
    lattice = MLKEM768PrivateKey.from_seed_bytes(secret[:64])
    curve = X25519PrivateKey.from_private_bytes(secret[64:])
    sent = encapsulated[MLKEM_SIZE:]
    first = lattice.decapsulate(encapsulated[:MLKEM_SIZE])
    second = curve.exchange(X25519PublicKey.from_public_bytes(sent))
    own = curve.public_key().public_bytes_raw()
    return sha3_256(first + second + sent + own + COMBINER).digest()


def _extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt, b"HPKE-v1" + SUITE + label + ikm, sha256).digest()


def _expand(prk: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """One block of HKDF-Expand is enough for at most 32 bytes."""
    info = size.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + context
    return hmac.new(prk, info + b"\x01", sha256).digest()[:size]


def opening(secret: bytes, encapsulated: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    """The shared secret, and the key and nonce of the one message."""
    shared = decapsulate(secret, encapsulated)
    context = b"\x00" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    schedule = _extract(shared, b"secret", b"")
    key = _expand(schedule, b"key", context, 32)
    return shared, key, _expand(schedule, b"base_nonce", context, 12)


def open_sealed(secret: bytes, sealed: bytes, info: bytes) -> bytes:
    """Open in base mode, with empty associated data."""
    if len(sealed) < ENCAPSULATED + 16:
        raise Refused("malformed")
    _, key, nonce = opening(secret, sealed[:ENCAPSULATED], info)
    try:
        return AESGCM(key).decrypt(nonce, sealed[ENCAPSULATED:], b"")
    except InvalidTag:
        raise Refused("tampered") from None
