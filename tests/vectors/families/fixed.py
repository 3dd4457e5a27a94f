"""Fixed inputs: every key, nonce and id of the vectors comes from its own name."""

from __future__ import annotations

from hashlib import shake_128
from typing import Any, TypeAlias

from kcm_sealing import xaes

Document: TypeAlias = dict[str, Any]


def fixed(name: str, size: int = 32) -> bytes:
    """``size`` bytes that depend on nothing but ``name``."""
    return shake_128(f"kcm test vectors v1: {name}".encode()).digest(size)


def seal(key: bytes, plaintext: bytes, aad: bytes, nonce: bytes) -> bytes:
    """XAES-256-GCM by the product's code."""
    locked = memoryview(bytearray(key))
    scratch = memoryview(bytearray(xaes.SCRATCH_SIZE))
    return bytes(xaes.seal(locked, plaintext, aad, nonce, scratch))


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    """``data`` with one bit changed; ``at`` may count from the end."""
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)
