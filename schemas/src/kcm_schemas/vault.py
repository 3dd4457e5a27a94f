"""Gateway to Core: wrap and unwrap, sealed.

The clear part (``CoreRequest`` without its sealed part) is associated data of the sealed part.
Sealed plaintexts are flat columns, so that keys move between locked memory and the cipher without
becoming Python objects:

- ``wrap`` request: ``count`` keys of 32 bytes. Reply: head, then ``count`` blobs of 72 bytes.
- ``unwrap`` request: ``count`` blobs of 72 bytes. Reply: head, ``count`` status bytes
  (0 ok, 1 tampered), then ``count`` keys of 32 bytes (zeros where the status is not 0).

The head of a reply is two big-endian u32: the answer lease in milliseconds, which the caller counts
from the sending of its request, and the L3 version that was used.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message, pack
from kcm_schemas.names import U32, U64, Id, Name

REPLY_HEAD: Final = struct.Struct(">II")
"""lease_ms, l3_version."""

STATUS_OK: Final = 0
STATUS_TAMPERED: Final = 1

Purpose = Literal["record", "stream"]
Operation = Literal["wrap", "unwrap"]


class Ticket(Message):
    """A statement with which every Core of the region can open the caller's session.

    ``ciphertext`` is the HPKE encapsulation of the session secret; the caller signed it. Times are
    Unix milliseconds.
    """

    session_id: Id
    hpke_key_id: Id
    issued_ms: U64
    expiry_ms: U64
    ciphertext: Annotated[bytes, Field(max_length=4096)]
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]


class CoreRequest(Message):
    """One sealed batch. ``l3_version`` 0 asks a wrap for the current version.

    ``incarnation`` is the caller's: a Core serves only callers whose lease entry it has read.
    """

    v: Literal[1]
    caller: Name
    incarnation: Id
    ticket: Ticket
    request_id: Id
    deadline_ms: U64
    purpose: Purpose
    l3_version: U32
    count: Annotated[int, Field(ge=1, le=limits.KEYS_MAX)]
    sealed: bytes

    def clear(self, region: str, operation: str, tenant: str, service: str) -> bytes:
        """Encode what the seal binds besides session and request id: subject and clear columns."""
        return pack(
            [
                region,
                operation,
                tenant,
                service,
                self.caller,
                self.incarnation,
                self.deadline_ms,
                self.purpose,
                self.l3_version,
                self.count,
            ]
        )


class CoreReply(Message):
    """A sealed reply, bound to the SHA-256 of its request."""

    v: Literal[1]
    callee: Name
    sealed: bytes
