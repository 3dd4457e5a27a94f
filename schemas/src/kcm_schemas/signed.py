"""A signed statement: the envelope of everything that needs a signature.

Each signature is over ``ctx("kcm/v1/sign", system, kind, signer, SHA-256(body))``; the body is a
message in its canonical encoding. ``kcm_trust`` decides what a kind of statement means and which
signers it needs.

An envelope is read by its one fixed shape, not by a general decoder: every client that can publish
can send anything, and this is all the work before a signature is checked. Until then the body stays
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, model_validator

from kcm_schemas import limits
from kcm_schemas.codec import Message, encode, validate
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import Name


class Kind(StrEnum):
    """The kind of a statement. A signature for one kind is invalid for another."""

    ROSTER = "roster"
    TENANT = "tenant"
    LINK = "link"
    SERVICE = "service"
    APP = "app"
    ACCEPTED = "accepted"
    ROOT_KEYS = "root-keys"
    SERVICE_KEYS = "service-keys"
    HOLD = "hold"
    LIFT = "lift"
    LIFTS = "lifts"
    RECEIPT = "receipt"
    RESULT = "result"
    LEASE = "lease"
    PEER_LEASE = "peer-lease"
    KEY_USE = "key-use"
    PULL = "pull"
    PULL_REPLY = "pull-reply"
    REGISTRY_QUESTION = "registry-question"
    REGISTRY_ANSWER = "registry-answer"
    ADMIN = "admin"
    ADMIN_REPLY = "admin-reply"
    AUDIT = "audit"
    AUDIT_HEAD = "audit-head"
    STREAM_HEAD = "stream-head"
    TRIM = "trim"
    SESSION_KEY = "session-key"


SIGNATURES_MAX: Final = 8
"""Signatures of one statement: more approvals than any policy needs, and a bound of the work."""

_KIB: Final = 1024

STATEMENT_MAX: Final[Mapping[Kind, int]] = MappingProxyType(
    dict.fromkeys(Kind, limits.BODY_MAX)
    | {
        Kind.TENANT: 8 * _KIB,
        Kind.LINK: 16 * _KIB,
        Kind.SERVICE: 4 * _KIB,
        Kind.APP: limits.REGISTRY_STATEMENT_MAX,
        Kind.ACCEPTED: 4 * _KIB,
        Kind.HOLD: limits.SIGNED_HOLD_MAX,
        Kind.LIFT: 2 * limits.SIGNED_HOLD_MAX,
        Kind.LIFTS: limits.LIFTS_MAX * limits.ID_SIZE + 4 * _KIB,
        Kind.RECEIPT: 16 * _KIB,
        Kind.RESULT: limits.RESULT_MAX,
        Kind.LEASE: 4 * _KIB,
        Kind.PEER_LEASE: 4 * _KIB,
        Kind.KEY_USE: 32 * _KIB,
        Kind.PULL: 16 * _KIB,
        Kind.REGISTRY_QUESTION: 4 * _KIB,
        Kind.REGISTRY_ANSWER: 4 * _KIB,
        Kind.SESSION_KEY: 4 * _KIB,
    }
)
"""Bytes of a statement by its kind, signatures included. Checking a signature reads the whole body
first, so kinds that are small by nature have small bounds."""


class Signature(Message):
    """One signer's signature of a statement."""

    signer: Name
    signature: Annotated[bytes, Field(min_length=64, max_length=64)]


class Signed(Message):
    """One statement of a system, with its signatures in the order of the signers' names, each once.

    Nothing in it counts before it is verified.
    """

    system: Name
    kind: Annotated[Kind, Field(strict=False)]
    body: bytes
    signatures: Annotated[list[Signature], Field(min_length=1, max_length=SIGNATURES_MAX)]

    @model_validator(mode="after")
    def _in_order(self) -> Signed:
        names = [one.signer for one in self.signatures]
        if names != sorted(set(names)):
            raise ValueError("signatures are not in the order of their signers, each once")
        return self


def read_signed(raw: bytes) -> Signed:
    """Read an envelope; raises ``too_large`` or ``malformed``.

    The result is that of ``decode(Signed, raw)``; the work does not depend on what ``raw`` claims.
    """
    if len(raw) > limits.BODY_MAX:
        raise KcmError(Code.TOO_LARGE)
    at = _Reader(raw)
    at.expect(_SYSTEM)
    system = at.text()
    at.expect(_KIND)
    kind = at.text()
    at.expect(_BODY)
    body = at.binary()
    at.expect(_SIGNATURES)
    signatures = [at.signature() for _ in range(at.count())]
    at.end()
    return validate(
        Signed, {"system": system, "kind": kind, "body": body, "signatures": signatures}
    )


def united(left: bytes, right: bytes) -> bytes:
    """Merge the signatures of two statements with the same body; of others, return the smaller.

    Both must be verified. Of more than ``SIGNATURES_MAX`` signers, the first by name are kept.
    """
    try:
        one, other = read_signed(left), read_signed(right)
    except KcmError:
        return min(left, right)
    if (one.system, one.kind, one.body) != (other.system, other.kind, other.body):
        return min(left, right)
    by_signer: dict[str, Signature] = {}
    for each in (*one.signatures, *other.signatures):
        known = by_signer.setdefault(each.signer, each)
        by_signer[each.signer] = min(known, each, key=lambda signed: signed.signature)
    signatures = [by_signer[name] for name in sorted(by_signer)[:SIGNATURES_MAX]]
    return encode(one.model_copy(update={"signatures": signatures}))


_SYSTEM: Final = b"\x84\xa6system"
_KIND: Final = b"\xa4kind"
_BODY: Final = b"\xa4body"
_SIGNATURES: Final = b"\xaasignatures"
_SIGNER: Final = b"\x82\xa6signer"
_SIGNATURE: Final = b"\xa9signature\xc4\x40"
_FIXSTR_MAX: Final = 31
_NAME_MAX: Final = limits.NAME_MAX
_SIZES: Final = ((0xC4, 1, 0), (0xC5, 2, 1 << 8), (0xC6, 4, 1 << 16))
"""Heads of binary values: first byte, bytes of the length, and the smallest length for them."""


class _Reader:
    """Walks through an envelope once. Every method raises ``malformed``."""

    __slots__ = ("_at", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def expect(self, these: bytes) -> None:
        if not self._raw.startswith(these, self._at):
            raise _malformed()
        self._at += len(these)

    def text(self) -> str:
        """A name or a kind: a short string in its shortest form."""
        head = self._byte()
        size = head - 0xA0
        if head == 0xD9:
            size = self._byte()
            if size <= _FIXSTR_MAX:
                raise _malformed()
        elif not 0 <= size <= _FIXSTR_MAX:
            raise _malformed()
        if size > _NAME_MAX:
            raise _malformed()
        try:
            return self._take(size).decode("ascii")
        except UnicodeDecodeError:
            pass
        raise _malformed()

    def binary(self) -> bytes:
        """Bytes in their shortest form."""
        head = self._byte()
        for code, width, least in _SIZES:
            if head == code:
                size = int.from_bytes(self._take(width), "big")
                if size < least:
                    raise _malformed()
                return self._take(size)
        raise _malformed()

    def count(self) -> int:
        """How many signatures follow."""
        size = self._byte() - 0x90
        if not 1 <= size <= SIGNATURES_MAX:
            raise _malformed()
        return size

    def signature(self) -> dict[str, object]:
        self.expect(_SIGNER)
        signer = self.text()
        self.expect(_SIGNATURE)
        return {"signer": signer, "signature": self._take(64)}

    def end(self) -> None:
        if self._at != len(self._raw):
            raise _malformed()

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        taken = self._raw[self._at : self._at + size]
        if len(taken) != size:
            raise _malformed()
        self._at += size
        return taken


def _malformed() -> KcmError:
    return KcmError(Code.MALFORMED, "not a signed statement in its canonical encoding")
