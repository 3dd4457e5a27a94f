"""Gateway to Core: wrap and unwrap, sealed.

The clear part (``CoreRequest`` without its sealed part) is associated data of the sealed part.
Sealed plaintexts are flat columns, so that keys move between locked memory and the cipher without
becoming Python objects:

- ``wrap`` request: ``count`` keys of 32 bytes. Reply: head, then ``count`` blobs of 72 bytes.
- ``unwrap`` request: ``count`` blobs of 72 bytes, then an encoded ``AskedKeys``, or nothing if no
  application asks. Reply: head, ``count`` status bytes, then ``count`` keys of 32 bytes (zeros
  where the status is not 0). The status is 0 ok, 1 tampered, 2 ``unknown_ask`` (the Core does not
  know the session of the one who asks), 3 ``forbidden`` (no application that may, asks for it).

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
STATUS_UNKNOWN_ASK: Final = 2
STATUS_FORBIDDEN: Final = 3

Purpose = Literal["record", "stream"]
Operation = Literal["wrap", "unwrap"]


class CoreRequest(Message):
    """One sealed batch. ``l3_version`` 0 asks a wrap for the current version.

    ``counter`` counts the caller's requests in this session, from 1. A Core serves each once.
    """

    v: Literal[1]
    caller: Name
    session_id: Id
    counter: Annotated[U64, Field(ge=1)]
    deadline_ms: U64
    purpose: Purpose
    l3_version: U32
    count: Annotated[int, Field(ge=1, le=limits.KEYS_MAX)]
    sealed: bytes

    def clear(self, region: str, operation: str, tenant: str, service: str) -> bytes:
        """Encode what the seal binds besides session and counter: subject and clear columns."""
        return pack(
            [
                region,
                operation,
                tenant,
                service,
                self.caller,
                self.deadline_ms,
                self.purpose,
                self.l3_version,
                self.count,
            ]
        )
