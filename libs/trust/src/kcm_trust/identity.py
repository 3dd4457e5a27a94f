"""An Ed25519 identity: signs for one instance, one operator or the operator root."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from kcm_crypto import context
from kcm_crypto.arena import Arena
from kcm_crypto.context import ctx
from kcm_crypto.memory import fill_random
from kcm_crypto.secretfile import read_secret, write_secret
from kcm_schemas.codec import Message, encode
from kcm_schemas.signed import Kind, Signed

SEED_SIZE: Final = 32
"""Bytes of an Ed25519 private key in its file."""

ROOT: Final = "root"
"""The name under which the operator root signs."""


class Identity:
    """A name and its private key; the library holds the key."""

    __slots__ = ("_key", "name", "public")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name: Final = name
        self._key: Final = key
        self.public: Final = key.public_key().public_bytes_raw()

    @classmethod
    def load(cls, name: str, path: str) -> Identity:
        """Read a private key from a file of mode 600; raises ``SecretFileError``."""
        arena = Arena()
        try:
            with arena.use() as view:
                seed = view[:SEED_SIZE]
                read_secret(path, seed)
                return cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        finally:
            arena.purge()

    @classmethod
    def create(cls, name: str, path: str) -> Identity:
        """Make a new key and its file; refuses to overwrite one."""
        arena = Arena()
        try:
            with arena.use() as view:
                seed = view[:SEED_SIZE]
                fill_random(seed)
                write_secret(path, seed)
                return cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        finally:
            arena.purge()

    def sign(self, kind: Kind, message: Message) -> Signed:
        """Sign a message as one kind of statement."""
        body = encode(message)
        return Signed(
            kind=kind,
            signer=self.name,
            body=body,
            signature=self._key.sign(to_sign(kind, self.name, body)),
        )

    def sign_raw(self, message: bytes) -> bytes:
        """Sign a message that carries its own label (a session ticket)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<Identity {self.name}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")


def to_sign(kind: Kind, signer: str, body: bytes) -> bytes:
    """The bytes under a signature; large bodies (an audit batch) are bound by their digest."""
    return ctx(context.SIGN, kind.value, signer, digest(body))


def digest(body: bytes) -> bytes:
    """SHA-256."""
    return sha256(body).digest()


def check(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature holds."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
