"""The envelope of the broker's claims: a JWT with the algorithm ``ed25519-nkey``.

Three parts, each in base64url without padding: a fixed header, the claims in JSON, and the
signature of the issuer over the two before it. Reading returns verified claims, or raises.

Source: github.com/nats-io/jwt, version 2.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from kcm_runtime.nats.nkeys import KeyKind, SigningKey, check_signature, decode_public
from kcm_schemas.codes import Code, KcmError

TOKEN_MAX: Final = (1 << 20) - 1024
"""Characters of a token: the broker's messages have 1 MiB at most, headers included."""

VERSION: Final = 2
"""The version of the claims."""

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}


class TokenKind(StrEnum):
    """What a token describes; the value is the word in its claims."""

    OPERATOR = "operator"
    ACCOUNT = "account"
    USER = "user"

    @property
    def subject(self) -> KeyKind:
        """The kind of key that such a token is about."""
        return KeyKind[self.name]

    @property
    def issuer(self) -> KeyKind:
        """The kind of key that signs such a token."""
        return KeyKind.ACCOUNT if self is TokenKind.USER else KeyKind.OPERATOR


@dataclass(frozen=True, slots=True)
class Claims:
    """Verified claims. Times are in seconds since 1970; ``expires`` of 0 means never.

    ``body`` is the part that depends on the kind (``nats`` in the token).
    """

    token: str
    kind: TokenKind
    issuer: str
    subject: str
    name: str
    issued: int
    expires: int
    not_before: int
    body: Mapping[str, Any]

    def check_time(self, now_s: int) -> None:
        """Raise ``forbidden`` if the claims are not valid at this time, in Unix seconds."""
        if self.expires and now_s >= self.expires:
            raise KcmError(Code.FORBIDDEN, "the claims have expired")
        if now_s < self.not_before:
            raise KcmError(Code.FORBIDDEN, "the claims are not valid yet")


def sign(issuer: SigningKey, kind: TokenKind, subject: str, claims: Mapping[str, Any]) -> str:
    """Return a signed token. ``claims`` has ``name``, ``iat``, ``nats``, and may have times.

    Raises ``malformed`` if a key is of the wrong kind, and ``too_large``.
    """
    if issuer.kind is not kind.issuer:
        raise KcmError(Code.MALFORMED, f"this kind of key signs no {kind.value}")
    decode_public(subject, kind.subject)
    body = {**claims, "iss": issuer.public, "sub": subject}
    body["nats"] = {**claims["nats"], "type": kind.value, "version": VERSION}
    body["jti"] = sha256(_json(body)).hexdigest()
    signed = f"{_base64(_json(_HEADER))}.{_base64(_json(body))}"
    token = f"{signed}.{_base64(issuer.sign(signed.encode('ascii')))}"
    if len(token) > TOKEN_MAX:
        raise KcmError(
            Code.TOO_LARGE, f"the token has {len(token)} characters, more than {TOKEN_MAX}"
        )
    return token


def verify(token: str, kind: TokenKind, issuers: Collection[str]) -> Claims:
    """Return the claims of a token that one of ``issuers`` (public keys) signed; checks no time.

    Raises ``malformed``, and ``forbidden`` for another issuer or a wrong signature.
    """
    parts = token.split(".") if len(token) <= TOKEN_MAX and token.isascii() else []
    if len(parts) != 3:
        raise KcmError(Code.MALFORMED, "not a token of the broker")
    if _object(_bytes(parts[0])) != _HEADER:
        raise KcmError(Code.MALFORMED, "the token has another type or algorithm")
    raw = _object(_bytes(parts[1]))
    claims = _claims(token, kind, raw)
    if claims.issuer not in issuers:
        raise KcmError(Code.FORBIDDEN, "the token has another issuer")
    check_signature(claims.issuer, f"{parts[0]}.{parts[1]}".encode("ascii"), _bytes(parts[2]))
    return claims


def peek_issuer(token: str) -> str:
    """Return the issuer that a token states, unverified; raises ``malformed``."""
    parts = token.split(".") if len(token) <= TOKEN_MAX and token.isascii() else []
    issuer = _object(_bytes(parts[1])).get("iss") if len(parts) == 3 else None
    if not isinstance(issuer, str):
        raise KcmError(Code.MALFORMED, "not a token of the broker")
    return issuer


def _claims(token: str, kind: TokenKind, raw: Mapping[str, Any]) -> Claims:
    body = raw.get("nats")
    if not isinstance(body, dict) or body.get("type") != kind.value:
        raise KcmError(Code.MALFORMED, f"the token is not about one {kind.value}")
    if body.get("version") != VERSION:
        raise KcmError(Code.MALFORMED, "the token has another version")
    texts = [raw.get(field) for field in ("iss", "sub", "name")]
    times = [raw.get(field, 0) for field in ("iat", "exp", "nbf")]
    if not all(isinstance(one, str) for one in texts):
        raise KcmError(Code.MALFORMED, "the token lacks an issuer, a subject or a name")
    if not all(type(one) is int and one >= 0 for one in times) or not times[0]:
        raise KcmError(Code.MALFORMED, "the token has a time that is not a number of seconds")
    issuer, subject, name = map(str, texts)
    decode_public(subject, kind.subject)
    decode_public(issuer, kind.issuer)
    return Claims(token, kind, issuer, subject, name, times[0], times[1], times[2], body)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode("ascii")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise KcmError(Code.MALFORMED, "a part of the token is not a JSON object")
    return value


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _bytes(part: str) -> bytes:
    """Decode one part; only the one canonical text is accepted."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise KcmError(Code.MALFORMED, "a part of the token is not base64url") from None
    if _base64(raw) != part:
        raise KcmError(Code.MALFORMED, "a part of the token is not base64url")
    return raw
