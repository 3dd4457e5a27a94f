"""HPKE (RFC 9180) with the hybrid KEM MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM.

An incarnation makes its keys in memory and stores none. The secret form has 96 bytes: the ML-KEM
seed (64) and the X25519 scalar (32). The public form is the two raw public keys in sequence
(1184 + 32 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from kcm_schemas.limits import HPKE_PUBLIC_SIZE

SECRET_SIZE: Final = 96
SUITE_NAME: Final = "mlkem768-x25519"

_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class KeyClosed(Exception):
    """The private key was closed and cannot open anything."""


@dataclass(frozen=True, slots=True)
class HpkePublic:
    """The public key of an incarnation."""

    key: hpke.MLKEM768X25519PublicKey

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the public form, 1216 bytes; raises ``ValueError``."""
        if len(raw) != HPKE_PUBLIC_SIZE:
            raise ValueError(f"an HPKE public key has {HPKE_PUBLIC_SIZE} bytes, not {len(raw)}")
        return cls(
            hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:1184]),
                X25519PublicKey.from_public_bytes(raw[1184:]),
            )
        )

    def encrypt(self, secret: memoryview, info: bytes) -> bytes:
        """Return the encapsulation and the ciphertext of ``secret``."""
        return _SUITE.encrypt(secret, self.key, info)


class HpkePrivate:
    """A private key; the cryptography library holds it (no ``repr``, no pickling)."""

    __slots__ = ("_key", "_public")

    def __init__(self, secret: memoryview) -> None:
        """``secret`` is the 96-byte secret form in locked memory; raises ``ValueError``."""
        if len(secret) != SECRET_SIZE:
            raise ValueError(f"an HPKE secret key has {SECRET_SIZE} bytes, not {len(secret)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:64])
        x25519 = X25519PrivateKey.from_private_bytes(secret[64:])
        self._key: hpke.MLKEM768X25519PrivateKey | None
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self._public = (
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @property
    def public_bytes(self) -> bytes:
        """The public form."""
        return self._public

    def decrypt_into(self, ciphertext: bytes, info: bytes, out: memoryview) -> None:
        """Open a ciphertext of ``HpkePublic.encrypt`` into ``out``.

        Raises ``InvalidTag``, and ``KeyClosed`` after ``close``. The library returns the secret as
        ``bytes``. This is the one key outside an arena: a session secret, which is freed at once;
        the allocator settings of a Core bound how long its bytes stay in memory.
        """
        if self._key is None:
            raise KeyClosed
        secret = _SUITE.decrypt(ciphertext, self._key, info)
        if len(secret) != len(out):
            raise InvalidTag
        out[:] = secret

    def close(self) -> None:
        """Drop the key; the library overwrites its keys when it frees them. Idempotent."""
        self._key = None

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")
