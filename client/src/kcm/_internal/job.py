"""One call of the SDK as messages: its requests, and the reading of its replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kcm_schemas import limits, record
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import (
    DecryptReply,
    DecryptRequest,
    DekScope,
    EncryptReply,
    EncryptRequest,
)

from kcm._internal.batches import RECORD_RESERVE
from kcm._internal.rpc import read_reply
from kcm.errors import Internal

Operation = Literal["encrypt", "decrypt"]
Answer = tuple[list[bytes], list[Code]]
"""Values and codes, one for each record."""


@dataclass(frozen=True, slots=True)
class Job:
    """A whole batch. ``contexts`` has no entry, one for all records, or one for each.

    ``place`` is region, tenant and service.
    """

    operation: Operation
    place: tuple[str, str, str]
    subject: str
    prefix: bytes
    dek_scope: DekScope
    payloads: Sequence[bytes]
    contexts: Sequence[bytes]

    def costs(self) -> list[int]:
        """Return the bytes of each record in a message, in the larger of both directions."""
        added = RECORD_RESERVE
        if self.operation == "encrypt":
            added += len(self.prefix) + limits.WRAPPED_SIZE + 8 + limits.TAG_SIZE
        own = self.contexts if len(self.contexts) == len(self.payloads) else None
        return [
            len(payload) + added + (len(own[index]) if own else 0)
            for index, payload in enumerate(self.payloads)
        ]

    def some(self, indexes: list[int]) -> tuple[list[bytes], list[bytes]]:
        """Return the payloads and contexts of one message."""
        payloads = [self.payloads[index] for index in indexes]
        if len(self.contexts) <= 1:
            return payloads, list(self.contexts)
        return payloads, [self.contexts[index] for index in indexes]

    def key_names(self, indexes: list[int]) -> list[bytes]:
        """Return the names of the data keys of one message to decrypt."""
        return record.key_names(*self.place, [self.payloads[index] for index in indexes])

    def build(self, indexes: list[int], deadline_ms: int) -> bytes:
        """Return the request for some of the records; ``deadline_ms`` is in Unix milliseconds."""
        payloads, contexts = self.some(indexes)
        match self.operation:
            case "encrypt":
                return encode(
                    EncryptRequest(
                        v=1,
                        deadline_ms=deadline_ms,
                        dek_scope=self.dek_scope,
                        plaintexts=payloads,
                        contexts=contexts,
                    )
                )
            case "decrypt":
                return encode(
                    DecryptRequest(
                        v=1, deadline_ms=deadline_ms, records=payloads, contexts=contexts
                    )
                )

    def read(self, count: int, body: bytes) -> tuple[Answer, float]:
        """Return a reply's values and codes, one for each of ``count`` records, and its lease.

        The answer lease is in seconds.
        """
        match self.operation:
            case "encrypt":
                encrypted = read_reply(EncryptReply, body)
                values, codes = encrypted.records, encrypted.codes
                lease_ms = encrypted.lease_ms
            case "decrypt":
                decrypted = read_reply(DecryptReply, body)
                values, codes = decrypted.plaintexts, decrypted.codes
                lease_ms = decrypted.lease_ms
        if len(values) != count or len(codes) not in (0, count):
            raise Internal("the reply has another number of records than the request")
        codes = list(codes) or [Code.OK] * count
        if self.operation == "encrypt":
            codes = [
                Code.TAMPERED if code is Code.OK and not value.startswith(self.prefix) else code
                for value, code in zip(values, codes, strict=True)
            ]
        return (values, codes), lease_ms / 1000
