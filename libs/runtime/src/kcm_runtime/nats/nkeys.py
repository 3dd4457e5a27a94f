"""NATS public keys and seeds: the texts in which the broker names Ed25519 keys.

A public key is base32, without padding, of a prefix byte, the 32 bytes of the key, and a checksum.
A seed has two prefix bytes, whose bits are ``S`` and the kind of key. The checksum is CRC-16/XMODEM
in little endian. The broker decrypts nothing with these keys, so a seed may be text, as a password.

Source: github.com/nats-io/nkeys, README and ``strkey.go``.
"""

from __future__ import annotations

import base64
import binascii
from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kcm_schemas.codes import Code, KcmError

KEY_SIZE: Final = 32
"""Bytes of an Ed25519 key, private or public."""

PUBLIC_LENGTH: Final = 56
"""Characters of a public key."""

SEED_LENGTH: Final = 58
"""Characters of a seed."""

_SEED_PREFIX: Final = 18 << 3
"""The first bits of a seed, which begins with ``S``."""


class KeyKind(Enum):
    """What a key is for; the value is the prefix byte, which decides the first letter."""

    OPERATOR = 14 << 3
    ACCOUNT = 0
    USER = 20 << 3

    @property
    def letter(self) -> str:
        """The first letter of a public key: ``O``, ``A`` or ``U``."""
        return self.name[0]


class SigningKey:
    """A private key of one kind. The seed is in no ``repr``, pickle or error."""

    __slots__ = ("_key", "kind", "public")

    def __init__(self, kind: KeyKind, key: Ed25519PrivateKey) -> None:
        self.kind: Final = kind
        self._key: Final = key
        self.public: Final = encode_public(kind, key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, kind: KeyKind) -> SigningKey:
        """Make a new key."""
        return cls(kind, Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, text: str) -> SigningKey:
        """Read a seed of 58 characters; raises ``malformed``, without the input."""
        raw = _decode(text, SEED_LENGTH, "a seed")
        kind_byte = ((raw[0] & 7) << 5) | (raw[1] >> 3)
        if raw[0] & 0xF8 != _SEED_PREFIX or raw[1] & 7:
            raise KcmError(Code.MALFORMED, "not a seed of a broker's key")
        return cls(_kind_of(kind_byte), Ed25519PrivateKey.from_private_bytes(raw[2:]))

    def derive(self, kind: KeyKind, info: bytes) -> SigningKey:
        """Return another key that follows from this one; ``info`` says which (HKDF, RFC 5869)."""
        hkdf = HKDF(SHA256(), KEY_SIZE, salt=None, info=info)
        raw = hkdf.derive(self._key.private_bytes_raw())
        return SigningKey(kind, Ed25519PrivateKey.from_private_bytes(raw))

    def seed(self) -> str:
        """Return the seed, for a file that only its owner may read."""
        prefix = bytes((_SEED_PREFIX | self.kind.value >> 5, (self.kind.value & 31) << 3))
        return _encode(prefix + self._key.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<SigningKey {self.public}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")


def encode_public(kind: KeyKind, raw: bytes) -> str:
    """Return the text of a public key of 32 bytes; raises ``malformed`` for another size."""
    if len(raw) != KEY_SIZE:
        raise KcmError(Code.MALFORMED, "an Ed25519 public key has 32 bytes")
    return _encode(bytes((kind.value,)) + raw)


def decode_public(text: str, kind: KeyKind) -> bytes:
    """Return the 32 bytes of a public key of this kind; raises ``malformed``."""
    raw = _decode(text, PUBLIC_LENGTH, "a public key")
    if _kind_of(raw[0]) is not kind:
        raise KcmError(Code.MALFORMED, f"the key is not of the kind {kind.name.lower()}")
    return raw[1:]


def kind_of_public(text: str) -> KeyKind:
    """Return the kind of a public key; raises ``malformed``."""
    return _kind_of(_decode(text, PUBLIC_LENGTH, "a public key")[0])


def check_signature(public: str, message: bytes, signature: bytes) -> None:
    """Verify a signature by a public key of any kind.

    Raises ``malformed`` for a bad key, and ``forbidden`` for a signature that is not valid.
    """
    raw = decode_public(public, kind_of_public(public))
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except InvalidSignature:
        raise KcmError(Code.FORBIDDEN, "the signature is not valid") from None


def _encode(raw: bytes) -> str:
    checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode("ascii").rstrip("=")


def _decode(text: str, length: int, what: str) -> bytes:
    """Return the bytes before the checksum; only the one canonical text is accepted."""
    if len(text) != length or not text.isascii():
        raise KcmError(Code.MALFORMED, f"{what} has {length} characters of base32")
    try:
        raw = base64.b32decode(text + "=" * (-length % 8))
    except binascii.Error:
        raise KcmError(Code.MALFORMED, f"{what} has {length} characters of base32") from None
    if _encode(raw[:-2]) != text:
        raise KcmError(Code.MALFORMED, f"{what} has a wrong checksum")
    return raw[:-2]


def _kind_of(prefix: int) -> KeyKind:
    try:
        return KeyKind(prefix)
    except ValueError:
        raise KcmError(
            Code.MALFORMED, "the key is not one of an operator, an account or a user"
        ) from None
