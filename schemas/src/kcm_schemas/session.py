"""Sessions between a caller and one instance: the key that it offers, and the ticket for a session.

The caller asks an instance for its session key (an empty request), verifies the statement, and
sends a ticket. From then on both have the two keys of the session; see ``kcm_sealing.session``. An
application seals whole requests (``SealedRequest``), an operator signed ones (``SealedAdmin``), and
a Gateway the columns of a ``CoreRequest``.

Every refusal before a session exists is unauthenticated: any client of the broker can send it. The
codes of ``UNSEALED`` mean only that another instance, or a new session, may help; a caller treats
every other unsealed code as ``unavailable``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.asks import Ask
from kcm_schemas.codec import Message, decode, pack
from kcm_schemas.codes import Code
from kcm_schemas.data import decode_reply
from kcm_schemas.names import U64, Id, Name
from kcm_schemas.roster import Role

UNSEALED: Final = frozenset(
    {
        Code.UNKNOWN_SESSION,
        Code.BUSY,
        Code.UNAVAILABLE,
        Code.MALFORMED,
        Code.DEADLINE_EXCEEDED,
        Code.REPLAYED,
    }
)
"""Codes that a refusal without a seal may have."""

NOT_COUNTED: Final = "the ticket does not count: "
"""The first words of a refusal to open a session; one of ``REASONS`` follows."""

REASONS: Final = frozenset(
    {
        "the application is not known in this region",
        "the application is revoked",
        "an operator took the application's key out of service",
        "the application may not act in this region",
        "the application is not valid yet, by the clock of this instance",
        "the application has expired, by the clock of this instance",
        "the application has another key",
        "the signer is not on the roster",
        "the signer is not an operator",
        "the operator is retired",
        "the signer is retired",
        "a signature is not valid",
    }
)
"""Why an application or an operator is not accepted. Any client of the broker can claim one of
these; a caller shows no other text of a refusal without a seal or signature."""

_RETIRED: Final = re.compile(r"the signer [a-z0-9-]{1,63} is retired")

OPENED: Final = struct.Struct(">I")
"""Inside of the sealed reply to a ticket: the version of the callee's roster."""


class SessionKey(Message):
    """The HPKE key of one incarnation, signed by its instance.

    A ticket may be made for it from ``issued_ms`` (Unix milliseconds) on, for ``valid_ms``
    milliseconds. The private key is in the memory of the incarnation alone.
    """

    instance: Name
    role: Annotated[Role, Field(strict=False)]
    region: Name
    incarnation: Id
    key_id: Id
    suite: Literal["mlkem768-x25519"]
    public: Annotated[
        bytes, Field(min_length=limits.HPKE_PUBLIC_SIZE, max_length=limits.HPKE_PUBLIC_SIZE)
    ]
    issued_ms: U64
    valid_ms: Annotated[int, Field(ge=1, le=limits.SESSION_KEY_MAX_MS)]


class StandingQuery(Message):
    """An application's question which instances may act: it knows of these holds already."""

    known: Annotated[list[Id], Field(max_length=limits.STANDING_MAX)]


class Standing(Message):
    """A Gateway's answer: the roster in force, and what it knows of holds on instances' keys.

    They are on Cores and Gateways of its region: those in force, and the present form of those in
    the query, which may be lifted. All of it is signed by others, so the answer is not.
    """

    roster: Annotated[bytes, Field(max_length=limits.BODY_MAX)]
    holds: Annotated[
        list[Annotated[bytes, Field(max_length=2 * limits.SIGNED_HOLD_MAX)]],
        Field(max_length=limits.STANDING_MAX),
    ]


class Ticket(Message):
    """A caller's statement that opens one session, once, at the instance with the key ``key_id``.

    ``ciphertext`` is the HPKE encapsulation of the session secret; the caller signed it. Times are
    Unix milliseconds.
    """

    v: Literal[1]
    caller: Name
    incarnation: Id
    session_id: Id
    key_id: Id
    issued_ms: U64
    expiry_ms: U64
    ciphertext: Annotated[bytes, Field(max_length=4096)]
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]


class SealedRequest(Message):
    """An application's request to one Gateway: an encoded request, sealed.

    ``counter`` counts the caller's requests in this session, from 1. A Gateway serves each once.
    ``asks`` has the tags for Cores of a request to decrypt: the Gateway passes them on.
    """

    v: Literal[1]
    caller: Name
    session_id: Id
    counter: Annotated[U64, Field(ge=1)]
    asks: Annotated[list[Ask], Field(max_length=limits.ASKS_MAX)]
    sealed: bytes

    def clear(self, region: str, operation: str, tenant: str, service: str) -> bytes:
        """Encode what the seal binds besides session and counter; see ``request_clear``."""
        return request_clear(region, (operation, tenant, service), self.caller, self.asks)


def request_clear(
    region: str, subject: tuple[str, str, str], caller: str, asks: Sequence[Ask]
) -> bytes:
    """Encode what the seal of a request binds besides session and counter.

    ``subject`` is operation, tenant and service.
    """
    made = [[one.core, one.session_id, one.deadline_ms, one.tags] for one in asks]
    return pack([region, *subject, caller, made])


class SealedAdmin(Message):
    """An operator's request to one Core: a signed ``AdminRequest``, sealed.

    ``counter`` is as in a ``SealedRequest``; the reply has the signed ``AdminReply`` inside.
    """

    v: Literal[1]
    caller: Name
    session_id: Id
    counter: Annotated[U64, Field(ge=1)]
    sealed: bytes

    def clear(self, region: str, noun: str, verb: str) -> bytes:
        """Encode what the seal binds besides session and counter: subject and caller."""
        return pack([region, noun, verb, self.caller])


class SealedReply(Message):
    """A sealed answer, bound to the SHA-256 of its request."""

    v: Literal[1]
    sealed: bytes


class SealedRefusal(Message):
    """A sealed ``Failure`` in place of an answer, bound to the SHA-256 of its request."""

    v: Literal[1]
    refused: Annotated[bytes, Field(max_length=limits.REFUSAL_MAX)]


_REFUSED: Final = b"\x82\xa1v\x01\xa7refused"
"""The first bytes of an encoded ``SealedRefusal``."""


def decode_sealed_reply(body: bytes) -> SealedReply | SealedRefusal:
    """Decode the reply of a Core; raises the ``KcmError`` that a failure without a seal carries."""
    if body.startswith(_REFUSED):
        return decode(SealedRefusal, body)
    return decode_reply(SealedReply, body)


def reason_claimed(detail: str) -> str:
    """Return which of ``REASONS`` a refusal claims; empty for any other text.

    The names in it, and what follows it, are left out: the sender chooses them.
    """
    reason = detail.removeprefix(NOT_COUNTED).partition(": ")[0]
    reason = _RETIRED.sub("the signer is retired", reason)
    return reason if reason in REASONS else ""
