"""An Ed25519 identity, which signs for one instance, one operator or the operator root."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from kcm_schemas import labels
from kcm_schemas.codec import Message, encode
from kcm_schemas.labels import ctx
from kcm_schemas.signed import Kind, Signature, Signed

SEED_SIZE: Final = 32
"""Bytes of an Ed25519 private key in its file."""

ROOT: Final = "root"
"""The name under which the operator root signs."""


class Identity:
    """A name in one system and its private key; the cryptography library holds the key."""

    __slots__ = ("_key", "name", "public", "system")

    def __init__(self, name: str, key: Ed25519PrivateKey, system: str) -> None:
        self.name: Final = name
        self.system: Final = system
        self._key: Final = key
        self.public: Final = key.public_key().public_bytes_raw()

    def sign(self, kind: Kind, message: Message) -> Signed:
        """Sign a message as one kind of statement."""
        body = encode(message)
        return Signed(
            system=self.system, kind=kind, body=body, signatures=[self._signature(kind, body)]
        )

    def countersign(self, statement: Signed) -> Signed:
        """Add this signature to a statement of the same system; raises ``ValueError`` otherwise.

        The caller has verified and read the statement.
        """
        if statement.system != self.system:
            raise ValueError(f"the statement is of system {statement.system}, not {self.system}")
        others = [one for one in statement.signatures if one.signer != self.name]
        own = self._signature(statement.kind, statement.body)
        signatures = sorted([*others, own], key=lambda one: one.signer)
        return Signed(
            system=statement.system,
            kind=statement.kind,
            body=statement.body,
            signatures=signatures,
        )

    def sign_raw(self, message: bytes) -> bytes:
        """Sign a message that carries its own label (a session ticket)."""
        return self._key.sign(message)

    def _signature(self, kind: Kind, body: bytes) -> Signature:
        message = to_sign(self.system, kind, self.name, digest(body))
        return Signature(signer=self.name, signature=self._key.sign(message))

    def __repr__(self) -> str:
        return f"<Identity {self.name}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")


def to_sign(system: str, kind: Kind, signer: str, body_digest: bytes) -> bytes:
    """Return the bytes that a signature covers; the digest binds a body of any size."""
    return ctx(labels.SIGN, system, kind.value, signer, body_digest)


def digest(body: bytes) -> bytes:
    """Return the SHA-256 of ``body``."""
    return sha256(body).digest()


def check(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature is valid."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
