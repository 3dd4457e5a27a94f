"""The private HPKE key of an instance, recognised in its memory by the public one (RFC 9180).

An instance makes the key in its memory and gives it to no one, so a search has to find it first.
Every 32 bytes of the memory are tried: the ML-KEM seed and the X25519 scalar are those that give
the public key. Neither the library's structures nor an entry to the process are needed for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha3_512, shake_256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

Q: Final = 3329
RANK: Final = 3
DEGREE: Final = 256

ALIGNED: Final = 16
"""Bytes: each half begins at a multiple of them, as the allocator returns memory."""

_DISTINCT: Final = 20
"""Different values that 32 random bytes have at least, except for one case in some millions."""


class NotFound(AssertionError):
    """A private key is not in the memory of its owner: the search proves nothing."""


def found(chunks: Iterable[bytes], public: bytes) -> dict[str, bytes]:
    """Return what stands for the private key of ``public`` (1216 bytes), as in ``expanded``.

    Raises ``NotFound`` unless both halves are in ``chunks``.
    """
    rho, point = public[-64:-32], public[-32:]
    seed = scalar = None
    for one in _strings(chunks):
        if seed is None and _expanded_seed(one)[:32] == rho:
            seed = one
        elif scalar is None and _point(one) == point:
            scalar = one
        if seed is not None and scalar is not None:
            return expanded(seed, scalar)
    raise NotFound("a private HPKE key is not in the memory of its owner")


def expanded(seed: bytes, scalar: bytes) -> dict[str, bytes]:
    """Return the secrets of a private key, 32 bytes each, by name: any one gives its half.

    ``seed`` is ML-KEM's *d*, and ``scalar`` that of X25519. ``noise`` is *sigma*, ``vector`` the
    start of the secret vector in the form that is used, two bytes for each coefficient (FIPS 203,
    section 5.1). ``clamped`` is the scalar as it is multiplied (RFC 7748, section 5).
    """
    noise = _expanded_seed(seed)[32:]
    vector = b"".join(value.to_bytes(2, "little") for value in _transformed(_sampled(noise, 0)))
    clamped = bytes((scalar[0] & 248, *scalar[1:31], scalar[31] & 127 | 64))
    return {
        "seed": seed,
        "noise": noise,
        "vector": vector[:32],
        "scalar": scalar,
        "clamped": clamped,
    }


def _strings(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return what may be random bytes, each string of them once."""
    tried = set[bytes]()
    for chunk in chunks:
        for at in range(0, len(chunk) - 31, ALIGNED):
            one = chunk[at : at + 32]
            if len(set(one)) >= _DISTINCT and one not in tried:
                tried.add(one)
                yield one


def _point(scalar: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()


def _expanded_seed(seed: bytes) -> bytes:
    """Return *rho* and *sigma* (FIPS 203, algorithm 13, line 1)."""
    return sha3_512(seed + bytes((RANK,))).digest()


def _sampled(noise: bytes, number: int) -> list[int]:
    """Return one polynomial of small coefficients (FIPS 203, algorithm 8, with eta = 2)."""
    raw = shake_256(noise + bytes((number,))).digest(DEGREE // 2)
    bits = [byte >> at & 1 for byte in raw for at in range(8)]
    return [
        (bits[at] + bits[at + 1] - bits[at + 2] - bits[at + 3]) % Q for at in range(0, len(bits), 4)
    ]


def _transformed(values: list[int]) -> list[int]:
    """Return the number-theoretic transform (FIPS 203, algorithm 9)."""
    turn, length = 1, DEGREE // 2
    while length >= 2:
        for start in range(0, DEGREE, 2 * length):
            zeta = pow(17, int(f"{turn:07b}"[::-1], 2), Q)
            turn += 1
            for at in range(start, start + length):
                product = zeta * values[at + length] % Q
                values[at + length] = (values[at] - product) % Q
                values[at] = (values[at] + product) % Q
        length //= 2
    return values
