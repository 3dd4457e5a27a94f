"""HPKE (RFC 9180) with the hybrid KEM MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM.

A region's Cores share one key. Its secret form is 96 bytes: the ML-KEM seed (64) and the X25519
scalar (32); its public form is the two raw public keys one after the other (1184 + 32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

SECRET_SIZE: Final = 96
PUBLIC_SIZE: Final = 1184 + 32
SUITE_NAME: Final = "mlkem768-x25519"

_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class KeyClosed(Exception):
    """The private key was closed: nothing can be opened with it."""


@dataclass(frozen=True, slots=True)
class HpkePublic:
    """A region's public key."""

    key: hpke.MLKEM768X25519PublicKey

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the public form; raises ``ValueError``."""
        if len(raw) != PUBLIC_SIZE:
            raise ValueError("an HPKE public key has 1216 bytes")
        return cls(
            hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:1184]),
                X25519PublicKey.from_public_bytes(raw[1184:]),
            )
        )

    def encrypt(self, secret: memoryview, info: bytes) -> bytes:
        """Encapsulation and ciphertext of ``secret``."""
        return _SUITE.encrypt(secret, self.key, info)


class HpkePrivate:
    """A region's private key; the library holds it (no ``repr``, no pickling)."""

    __slots__ = ("_key", "_public")

    def __init__(self, secret: memoryview) -> None:
        """``secret`` is the 96-byte secret form in locked memory."""
        if len(secret) != SECRET_SIZE:
            raise ValueError("an HPKE secret key has 96 bytes")
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
        """Open what ``HpkePublic.encrypt`` made; raises ``InvalidTag``, ``KeyClosed`` once closed.

        The library returns the secret as ``bytes``: a session secret, freed at once, is the one
        exception that the allocator settings of a Core are there for.
        """
        if self._key is None:
            raise KeyClosed
        secret = _SUITE.decrypt(ciphertext, self._key, info)
        if len(secret) != len(out):
            raise InvalidTag
        out[:] = secret

    def close(self) -> None:
        """Let go of the key: the library overwrites its keys when it frees them. Idempotent."""
        self._key = None

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")
