"""The accounts of a region and of the backbone, as the claims that the broker operator signs.

An account has a *scope* for each role, or for each instance: a signing key with the
template of ``rights``. A user that such a key signs has these rights, and no others. Only accounts
with streams get JetStream. Between the accounts of the backbone pass the subjects that bear the
sender's region, and the pulls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kcm_runtime.clock import Clock
from kcm_runtime.nats.nkeys import KeyKind, SigningKey, decode_public
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_region

from kcm_broker.claims import User, account_token, issued_at, user_token
from kcm_broker.rights import TABLE, rights
from kcm_broker.roles import GRANT_VERBS, INSTANCE_ROLES, SPOKEN, Account, Rights, Role
from kcm_broker.tokens import Claims

WITH_STREAMS: Final = frozenset({Account.REGION, Account.VAULT})
"""The accounts that may use JetStream."""

REVOCATIONS_MAX: Final = 8_000
"""Revocations of one account, 93 bytes each: with more, its token could not be pushed."""


@dataclass(frozen=True, slots=True)
class ScopeId:
    """A signing key of an account: a role, and the instance if the role has instances."""

    role: Role
    account: Account
    instance: str = ""


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a user's tokens that were issued until ``at``, in Unix seconds.

    The entry is dropped once they have all expired (``until``); 0 means that they never do.
    """

    user: str
    at: int
    until: int = 0


@dataclass(frozen=True, slots=True)
class Peering:
    """What passes between an account of the backbone and the others, as claims."""

    exports: tuple[Mapping[str, Any], ...] = ()
    imports: tuple[Mapping[str, Any], ...] = ()


def scopes_of(account: Account, instances: Iterable[tuple[Role, str]]) -> list[ScopeId]:
    """Return the signing keys that an account needs for these instances and for all other roles."""
    named = list(instances)
    found = []
    for role, place in TABLE:
        if place is not account:
            continue
        if role in INSTANCE_ROLES:
            found += [ScopeId(role, account, name) for kind, name in named if kind is role]
        else:
            found.append(ScopeId(role, account))
    return found


def account_body(
    region: str,
    account: Account,
    scopes: Mapping[ScopeId, str],
    revocations: Sequence[Revocation] = (),
    *,
    now_s: int,
    peering: Peering | None = None,
    rights_of: Callable[[Role, Account, str, str], Rights] = rights,
) -> dict[str, Any]:
    """Return the claims of an account. ``scopes`` has the public keys (``A…``) of its scopes.

    ``rights_of`` replaces the table of rights. Raises ``malformed`` for a scope of another account
    or a bad key, and ``too_large``.
    """
    keys = []
    for scope, key in scopes.items():
        if scope.account is not account:
            raise KcmError(Code.MALFORMED, f"a scope of another account than {account}")
        keys.append(_scope(scope, key, rights_of(scope.role, account, region, scope.instance)))
    if len({one["key"] for one in keys}) != len(keys):
        raise KcmError(Code.MALFORMED, "two scopes have the same key")
    body: dict[str, Any] = {
        "limits": _limits(account),
        "signing_keys": sorted(keys, key=lambda one: str(one["role"])),
    }
    revoked = live(revocations, now_s)
    if revoked:
        body["revocations"] = revoked
    if peering is not None:
        body["exports"] = list(peering.exports)
        body["imports"] = list(peering.imports)
    return body


def live(revocations: Iterable[Revocation], now_s: int) -> dict[str, int]:
    """Return the revocations that still have an effect, by user; raises ``too_large``."""
    found: dict[str, int] = {}
    for one in revocations:
        decode_public(one.user, KeyKind.USER)
        if not one.until or one.until > now_s:
            found[one.user] = max(one.at, found.get(one.user, 0))
    if len(found) > REVOCATIONS_MAX:
        raise KcmError(
            Code.TOO_LARGE,
            f"{len(found)} revocations, and {REVOCATIONS_MAX} fit into an account: let tokens of"
            " users expire, or replace the signing key of their role",
        )
    return dict(sorted(found.items()))


def revoke(user: Claims, now_s: int) -> Revocation:
    """Return the revocation of a user's token, and of all that were issued to its key before."""
    return Revocation(user.subject, max(now_s, user.issued), user.expires)


def issue_account(
    operator: SigningKey,
    public: str,
    account: Account,
    body: Mapping[str, Any],
    clock: Clock,
    replaced: Claims | None = None,
) -> str:
    """Return an account's token, later than the one that it replaces.

    Raises ``malformed``, ``too_large``, and ``conflict`` if the replaced one is of a later time.
    """
    after = 0 if replaced is None else replaced.issued
    return account_token(operator, public, account.value, body, issued_at(clock, after))


def issue_user(
    key: SigningKey, scope: ScopeId, account: str, user: User, clock: Clock, after: int = 0
) -> str:
    """Return a user's token, signed by the key of a scope of the account with this public key.

    ``after`` is when the token that it replaces was issued, or revoked. Raises as ``user_token``.
    """
    verbs = GRANT_VERBS.get(scope.role, frozenset())
    if scope.instance and user.name != scope.instance:
        raise KcmError(Code.MALFORMED, "the user of an instance's key has the instance's name")
    return user_token(key, account, user, issued_at(clock, after), verbs)


def peering_of(region: str, accounts: Mapping[str, str]) -> Peering:
    """Return what passes between a region and the others. ``accounts``: public keys by region.

    The exports are public, since only the backbone's operator signs imports. Raises
    ``malformed``.
    """
    if region not in accounts or not all(map(is_region, accounts)):
        raise KcmError(Code.MALFORMED, "the backbone has no account for such a region")
    others = {name: key for name, key in accounts.items() if name != region}
    return Peering(
        exports=(
            *(_stream(subject) for subject in spoken_by(region)),
            *(_service(subjects.pull(region, other)) for other in others),
        ),
        imports=(
            *(
                _stream(subject) | {"account": key}
                for other, key in others.items()
                for subject in spoken_by(other)
            ),
            *(_import_service(subjects.pull(other, region), key) for other, key in others.items()),
        ),
    )


def spoken_by(region: str) -> tuple[str, ...]:
    """Return the subjects that a region, and no other one, can broadcast on."""
    return tuple(f"{subjects.CTL}.{noun}.{region}.>" for noun in SPOKEN)


def _scope(scope: ScopeId, key: str, allowed: Rights) -> dict[str, Any]:
    decode_public(key, KeyKind.ACCOUNT)
    return {
        "kind": "user_scope",
        "key": key,
        "role": scope_name(scope),
        "template": allowed.template(),
    }


def scope_name(scope: ScopeId) -> str:
    """Return the name of a scope in its account's token."""
    return f"{scope.role}-{scope.instance}" if scope.instance else str(scope.role)


def unrestricted(key: str, name: str) -> dict[str, Any]:
    """Return a signing key (public key) whose users may do everything in the account.

    No role has one. It is for credentials that are made for a purpose and end soon.
    """
    decode_public(key, KeyKind.ACCOUNT)
    # A template without lists allows everything.
    template = dict.fromkeys(("subs", "data", "payload"), -1)
    return {"kind": "user_scope", "key": key, "role": name, "template": template}


def _limits(account: Account) -> dict[str, Any]:
    """Return an account's limits. Without those of streams, JetStream does not answer there."""
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    limits: dict[str, Any] = {**dict.fromkeys(names, -1), "wildcards": True}
    if account in WITH_STREAMS:
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    return limits


def _stream(subject: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": "stream"}


def _service(subject: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": "service", "response_type": "Singleton"}


def _import_service(subject: str, account: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": "service", "account": account}
