"""App to Gateway: encrypt and decrypt, always in batches, in columns.

``contexts`` has no entry (no application context), one (for every record) or one for each record.
The ``codes`` of a reply are empty when every record is ``ok``, otherwise one for each record; a
record that failed has empty bytes in its place.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message, decode, decode_unpacked, unpack
from kcm_schemas.codes import Code, CodeField, KcmError
from kcm_schemas.names import U32, U64, Text

Column = Annotated[list[bytes], Field(min_length=1, max_length=limits.RECORDS_MAX)]
AppContext = Annotated[bytes, Field(max_length=limits.APP_CONTEXT_MAX)]
Contexts = Annotated[list[AppContext], Field(max_length=limits.RECORDS_MAX)]
Codes = Annotated[list[CodeField], Field(max_length=limits.RECORDS_MAX)]
DekScope = Literal["record", "batch"]


class EncryptRequest(Message):
    """Plaintexts to encrypt. ``deadline_ms`` is absolute, in Unix milliseconds."""

    v: Literal[1]
    deadline_ms: U64
    dek_scope: DekScope
    plaintexts: Column
    contexts: Contexts


class EncryptReply(Message):
    """Records in the order of the plaintexts.

    ``lease_ms`` is the answer lease in milliseconds, counted from the sending of the request.
    """

    v: Literal[1]
    lease_ms: U32
    records: Column
    codes: Codes


class DecryptRequest(Message):
    """Records to decrypt. ``deadline_ms`` is absolute, in Unix milliseconds."""

    v: Literal[1]
    deadline_ms: U64
    records: Column
    contexts: Contexts


class DecryptReply(Message):
    """Plaintexts in the order of the records; ``lease_ms`` as in an EncryptReply."""

    v: Literal[1]
    lease_ms: U32
    plaintexts: Column
    codes: Codes


class Failure(Message):
    """The whole request was refused."""

    v: Literal[1]
    error: CodeField
    detail: Text


R = TypeVar("R", bound=Message)


def decode_reply(model: type[R], body: bytes) -> R:
    """Decode a reply; raises the ``KcmError`` that a failure carries.

    A failure is not signed, so its text can come from any party that can publish. Text with control
    characters or line breaks is dropped, so that it cannot manipulate a terminal.
    """
    value = unpack(body)
    if isinstance(value, dict) and "error" in value:
        failure = decode(Failure, body)
        if failure.error is Code.OK:
            raise KcmError(Code.MALFORMED, "a failure reply with the code ok")
        raise KcmError(failure.error, failure.detail if failure.detail.isprintable() else "")
    return decode_unpacked(model, value, body)
