"""Broker operators, accounts and users as signed claims.

Users are scoped: a user's token names its account and has tags, and nothing else. All rights are
in the template of the signing key, which the broker reads from the account (``rights``). The
broker puts names and tags into the template's subjects without escaping: a name ``*`` would be
every inbox. So names and grants are checked here, before they are signed.

``issued`` is in Unix seconds, and rises strictly for one subject: the broker orders an account's
tokens by it, and a user that was revoked gets in again only with a later one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kcm_runtime.clock import Clock
from kcm_runtime.nats.credentials import USER_TOKEN_MAX
from kcm_runtime.nats.nkeys import KeyKind, SigningKey, decode_public
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name

from kcm_broker import tokens
from kcm_broker.tokens import Claims, TokenKind

GRANT_TAG: Final = "grant"
"""The tag whose value is ``<verb>.<tenant>.<service>``, a piece of a subject."""

APPLICATION_VERBS: Final = frozenset({"encrypt", "decrypt"})
"""What an application asks of Gateways."""

EMBEDDED_VERBS: Final = frozenset({"wrap", "unwrap"})
"""What an application with an embedded Gateway asks of Cores."""

GRANTS_MAX: Final = 512
"""Grants of one user: 256 places, each for two verbs (``limits.APP_GRANTS_MAX``)."""

AHEAD_S_MAX: Final = 300
"""Seconds by which ``issued`` may be after the clock. A revocation made now does not reach a token
that was issued later, so more than this means that a clock is wrong."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a user may connect, in Unix seconds; 0 means without a bound."""

    not_before: int = 0
    expires: int = 0


@dataclass(frozen=True, slots=True)
class User:
    """A user to sign: its public key, its name, and its grants (``decrypt.acme.mail``)."""

    public: str
    name: str
    grants: tuple[str, ...] = ()
    validity: Validity = field(default_factory=Validity)


def issued_at(clock: Clock, after: int = 0) -> int:
    """Return the time of a token that replaces one issued at ``after``, in Unix seconds.

    Raises ``conflict`` if that one is more than ``AHEAD_S_MAX`` later than the clock.
    """
    now = clock.unix_ms() // 1000
    if after + 1 > now + AHEAD_S_MAX:
        raise KcmError(Code.CONFLICT, "the token to replace is of a later time: check the clock")
    return max(now, after + 1)


def operator_token(
    key: SigningKey, name: str, signing_keys: Sequence[str], system_account: str, issued: int
) -> str:
    """Return a broker operator's token, signed by itself.

    ``signing_keys`` are public keys that sign accounts, so that ``key`` can stay offline. Raises
    ``malformed``.
    """
    for one in signing_keys:
        decode_public(one, KeyKind.OPERATOR)
    decode_public(system_account, KeyKind.ACCOUNT)
    body = {"signing_keys": sorted(set(signing_keys)), "system_account": system_account}
    return tokens.sign(key, TokenKind.OPERATOR, key.public, _claims(name, issued, body))


def account_token(
    signer: SigningKey, public: str, name: str, body: Mapping[str, Any], issued: int
) -> str:
    """Return an account's token, signed by the broker operator; ``accounts`` makes ``body``.

    Raises ``malformed`` and ``too_large``.
    """
    return tokens.sign(signer, TokenKind.ACCOUNT, public, _claims(name, issued, body))


def user_token(
    signer: SigningKey, account: str, user: User, issued: int, verbs: Collection[str] = frozenset()
) -> str:
    """Return a user's token, signed by a scoped key of its account (``account``: public key).

    ``verbs`` are those that a grant may have; without any, the user can have no grants. Raises
    ``malformed``, and ``too_large`` if the broker could not take the token.
    """
    decode_public(account, KeyKind.ACCOUNT)
    for grant in user.grants:
        check_grant(grant, verbs)
    if len(user.grants) > GRANTS_MAX:
        raise KcmError(Code.TOO_LARGE, f"a user has {GRANTS_MAX} grants at most")
    body: dict[str, Any] = {"issuer_account": account}
    if user.grants:
        body["tags"] = [f"{GRANT_TAG}:{grant}" for grant in sorted(set(user.grants))]
    claims = _claims(user.name, issued, body) | _times(user.validity)
    token = tokens.sign(signer, TokenKind.USER, user.public, claims)
    if len(token) > USER_TOKEN_MAX:
        raise KcmError(
            Code.TOO_LARGE, f"the user's token has {len(token)} characters: give fewer grants"
        )
    return token


def check_grant(grant: str, verbs: Collection[str]) -> None:
    """Raise ``malformed`` unless the grant is ``<verb>.<tenant>.<service>``.

    Tenant and service are plain names, or ``*``. The registry has a grant of every tenant only if
    two operators signed it; the broker takes what the key of the role signs.
    """
    parts = grant.split(".")
    named = all(part == "*" or is_name(part) for part in parts[1:])
    if len(parts) != 3 or parts[0] not in verbs or not named:
        known = " or ".join(sorted(verbs)) or "no verb"
        raise KcmError(
            Code.MALFORMED,
            f"a grant is VERB.TENANT.SERVICE, with {known}, and with names or * for the others",
        )


def verify_operator(token: str) -> Claims:
    """Return a broker operator's claims, which it signed itself.

    The caller compares ``subject`` with the key that it trusts. Raises ``malformed`` and
    ``forbidden``.
    """
    raw = tokens.peek_issuer(token)
    claims = tokens.verify(token, TokenKind.OPERATOR, {raw})
    if claims.subject != claims.issuer:
        raise KcmError(Code.FORBIDDEN, "an operator signs its own token")
    return claims


def verify_account(token: str, operators: Collection[str]) -> Claims:
    """Return an account's claims; ``operators`` are the operator's key and its signing keys.

    Raises ``malformed``, and ``forbidden`` for one that another operator signed.
    """
    return tokens.verify(token, TokenKind.ACCOUNT, operators)


def verify_user(token: str, account: str, signing_keys: Collection[str], now_s: int) -> Claims:
    """Return the claims of a scoped user of an account at a time, in Unix seconds.

    Raises ``malformed``, and ``forbidden`` for another issuer or account, outside of its validity,
    or if the token has rights of its own, which the broker refuses.
    """
    claims = tokens.verify(token, TokenKind.USER, signing_keys)
    if claims.body.get("issuer_account") != account:
        raise KcmError(Code.FORBIDDEN, "the user is of another account")
    if set(claims.body) - {"issuer_account", "tags", "type", "version"}:
        raise KcmError(Code.FORBIDDEN, "the user's token has rights of its own")
    claims.check_time(now_s)
    return claims


def _claims(name: str, issued: int, body: Mapping[str, Any]) -> dict[str, Any]:
    if not is_name(name):
        raise KcmError(Code.MALFORMED, "a name needs 1 to 63 characters of a-z, 0-9 and -")
    if issued <= 0:
        raise KcmError(Code.MALFORMED, "a token is issued at a time after 1970")
    return {"name": name, "iat": issued, "nats": dict(body)}


def _times(validity: Validity) -> dict[str, int]:
    if min(validity.not_before, validity.expires) < 0:
        raise KcmError(Code.MALFORMED, "a validity has no times before 1970")
    if validity.expires and validity.expires <= validity.not_before:
        raise KcmError(Code.MALFORMED, "the validity ends before it begins")
    named = {"nbf": validity.not_before, "exp": validity.expires}
    return {name: value for name, value in named.items() if value}
