"""A broker operator and its accounts, as files. Every key is made once.

    operator.seed                     the broker operator; it signs its own token only
    signer.seed                       signs the accounts
    operator.jwt                      the operator's token, for the servers
    accounts/LABEL/account.seed       an account's own key; it signs nothing
    accounts/LABEL/token.jwt          the account's token, for the servers
    accounts/LABEL/ROLE[.INSTANCE].seed   signs the users of a role, or the user of an instance
    accounts/LABEL/revoked.json       users that the account does not let in any more

A label is the account's name, or the region's on the backbone. A repetition changes nothing. If the
instances or the table of rights change, the account gets a later token, which the servers take from
their configuration at the next start, or when it is pushed to them (``resolver``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from kcm_runtime.clock import Clock
from kcm_runtime.files.atomic import place
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import KeyKind, SigningKey, decode_public
from kcm_schemas.codes import Code, KcmError

from kcm_broker.accounts import (
    Peering,
    Revocation,
    ScopeId,
    account_body,
    issue_account,
    issue_user,
    scope_name,
    scopes_of,
)
from kcm_broker.claims import (
    GRANT_TAG,
    User,
    Validity,
    issued_at,
    operator_token,
    verify_account,
    verify_operator,
    verify_user,
)
from kcm_broker.key_files import kept_key, read_key
from kcm_broker.resolver import OwnScope
from kcm_broker.rights import rights
from kcm_broker.roles import Account, Rights, Role
from kcm_broker.tokens import Claims

RightsOf = Callable[[Role, Account, str, str], Rights]
"""Returns the rights of a role in an account, by region and instance, as ``rights`` does."""

_ALWAYS: Final = Validity()

FOR_EVER: Final = 253_402_300_799
"""The last second of the year 9999: a revocation of every token, whatever a clock says."""


class Realm:
    """The broker operator of a region or of the backbone, in a directory."""

    def __init__(
        self, directory: Path, name: str, clock: Clock, rights_of: RightsOf = rights
    ) -> None:
        """``name`` is the region's. Raises ``SecretFileError`` and ``malformed`` for bad files."""
        self._directory: Final = directory
        self.name: Final = name
        self._clock: Final = clock
        self._rights_of: Final = rights_of
        known = (directory / "operator.jwt").exists()
        self._root: Final = kept_key(directory / "operator.seed", KeyKind.OPERATOR, known=known)
        self._signer: Final = kept_key(directory / "signer.seed", KeyKind.OPERATOR, known=known)

    @property
    def operators(self) -> frozenset[str]:
        """The public keys that may sign accounts."""
        return frozenset({self._root.public, self._signer.public})

    @staticmethod
    def operators_in(directory: Path) -> frozenset[str]:
        """Return the same of an existing directory, without making a key; raises ``read_key``'s."""
        names = ("operator.seed", "signer.seed")
        return frozenset(read_key(directory / one, KeyKind.OPERATOR).public for one in names)

    def public(self, label: str) -> str:
        """Return the public key of an account, which is made if it is missing."""
        known = (self._place(label) / "token.jwt").exists()
        return kept_key(self._place(label) / "account.seed", KeyKind.ACCOUNT, known=known).public

    def operator(self) -> str:
        """Return the operator's token, which names the system account."""
        path, system = self._directory / "operator.jwt", self.public(Account.SYSTEM)
        signing = [self._signer.public]
        known = _known(path, verify_operator)
        if known is not None and known.subject != self._root.public:
            known = None
        body = {"signing_keys": signing, "system_account": system}
        if known is not None and _is(known, body):
            return known.token
        issued = issued_at(self._clock, known.issued if known else 0)
        token = operator_token(self._root, self.name, signing, system, issued)
        place(path, token.encode("ascii"), private=False)
        return token

    def account(
        self,
        account: Account,
        instances: Iterable[tuple[Role, str]] = (),
        *,
        label: str = "",
        peering: Peering | None = None,
        more: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return an account's token, which is issued if it is missing or has to change.

        ``more`` are further signing keys, as the account's claims have them.
        """
        label = label or account.value
        scopes = {scope: self.scope(scope, label).public for scope in scopes_of(account, instances)}
        body = account_body(
            self.name if label == account.value else label,
            account,
            scopes,
            self._revoked(label),
            now_s=self._clock.unix_ms() // 1000,
            peering=peering,
            rights_of=self._rights_of,
        )
        body["signing_keys"] = [*body["signing_keys"], *map(dict, more)]
        path, public = self._place(label) / "token.jwt", self.public(label)
        known = _known(path, self._verify)
        if known is not None and known.subject == public and _is(known, body):
            return known.token
        token = issue_account(self._signer, public, account, body, self._clock, known)
        make_directory(path.parent)
        place(path, token.encode("ascii"), private=False)
        return token

    def scope(self, scope: ScopeId, label: str = "") -> SigningKey:
        """Return the signing key of a scope, which is made if the account has none yet."""
        path = self.scope_file(scope, label)
        known = not path.exists() and scope_name(scope) in self._roles(label or scope.account.value)
        return kept_key(path, KeyKind.ACCOUNT, known=known)

    def replace_scope(self, scope: ScopeId) -> None:
        """Make another signing key: the next token of the account ends all users of the old one."""
        key = SigningKey.generate(KeyKind.ACCOUNT)
        place(self.scope_file(scope), f"{key.seed()}\n".encode("ascii"))

    def _roles(self, label: str) -> set[str]:
        """Return the names of the signing keys in an account's present token."""
        known = _known(self._place(label) / "token.jwt", self._verify)
        keys = [] if known is None else known.body.get("signing_keys", [])
        return {str(one["role"]) for one in keys if isinstance(one, dict) and "role" in one}

    def _verify(self, token: str) -> Claims:
        return verify_account(token, self.operators)

    def key(self, label: str, name: str) -> SigningKey:
        """Return a further signing key of an account, which is made if it is missing."""
        return kept_key(self._place(label) / f"{name}.seed", KeyKind.ACCOUNT)

    def scope_file(self, scope: ScopeId, label: str = "") -> Path:
        """Return the file of a scope's signing key."""
        name = f"{scope.role}.{scope.instance}" if scope.instance else str(scope.role)
        return self._place(label or scope.account.value) / f"{name}.seed"

    def revoke(self, label: str, user: str, at: int = FOR_EVER) -> None:
        """Let a user (public key) in no more, with any token that was issued until ``at``.

        ``at`` is in Unix seconds; by default, no token of the user counts again. It counts in the
        next token of the account, which every server has to get. Use it under a lock.
        """
        decode_public(user, KeyKind.USER)
        kept = [one for one in self._revoked(label) if one.user != user or one.at > at]
        rows = [asdict(one) for one in (*kept, Revocation(user, at))]
        place(self._place(label) / "revoked.json", json.dumps(rows, indent=2).encode("ascii"))

    def _revoked(self, label: str) -> list[Revocation]:
        """Return an account's revocations; raises ``malformed``: none may be forgotten."""
        path = self._place(label) / "revoked.json"
        try:
            return [Revocation(**row) for row in json.loads(path.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            raise KcmError(Code.MALFORMED, f"{path} is not a list of revocations") from None

    def own_scope(self) -> OwnScope:
        """Return the system account, and the key of the pushers' scope in it."""
        scope = ScopeId(Role.PUSHER, Account.SYSTEM)
        return OwnScope(self.public(Account.SYSTEM), self.scope(scope).public)

    def user(
        self,
        path: Path,
        scope: ScopeId,
        name: str,
        grants: Sequence[str] = (),
        *,
        label: str = "",
    ) -> None:
        """Write the credentials file of a user, unless it is there and valid."""
        account = self.public(label or scope.account.value)
        issuer = Issuer(self.scope(scope, label), scope, account, self._clock)
        kept_user(path, issuer, name, grants)

    def _place(self, label: str) -> Path:
        return self._directory / "accounts" / label


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues users: the signing key of a scope, and the account's public key."""

    key: SigningKey
    scope: ScopeId
    account: str
    clock: Clock


def kept_user(
    path: Path,
    issuer: Issuer,
    name: str,
    grants: Sequence[str] = (),
    validity: Validity = _ALWAYS,
    *,
    key: SigningKey | None = None,
) -> bool:
    """Write a user's credentials file, unless it is valid as it is; return whether it was written.

    ``key`` is the user's. Without one, the file's key is kept, so that a client that runs keeps its
    inboxes. Raises ``malformed`` and ``too_large`` for a bad name or grant, and ``OSError``.
    """
    present = _present(path)
    if present is not None and key is not None and present.key.public != key.public:
        present = None
    known = None if present is None else _valid(present, issuer)
    if known is not None and _same_user(known, name, grants, validity):
        return False
    if key is None:
        key = SigningKey.generate(KeyKind.USER) if present is None else present.key
    user = User(key.public, name, tuple(grants), validity)
    after = known.issued if known else 0
    token = issue_user(issuer.key, issuer.scope, issuer.account, user, issuer.clock, after)
    make_directory(path.parent)
    credentials.write(path, Credentials(token, key))
    return True


def _present(path: Path) -> Credentials | None:
    """Return what a file has; raises ``SecretFileError`` if others could read it.

    Such a file is not replaced: its user has to be revoked first.
    """
    try:
        return credentials.read(path) if path.exists() else None
    except KcmError:
        return None  # it has no credentials, and is replaced


def _valid(present: Credentials, issuer: Issuer) -> Claims | None:
    now_s = issuer.clock.unix_ms() // 1000
    try:
        found = verify_user(present.token, issuer.account, {issuer.key.public}, now_s)
    except KcmError:
        return None
    return found if found.subject == present.key.public else None


def _same_user(known: Claims, name: str, grants: Sequence[str], validity: Validity) -> bool:
    tags = [f"{GRANT_TAG}:{grant}" for grant in sorted(set(grants))]
    times = (known.not_before, known.expires)
    wanted = (validity.not_before, validity.expires)
    return (known.name, list(known.body.get("tags", [])), times) == (name, tags, wanted)


def _known(path: Path, verify: Callable[[str], Claims]) -> Claims | None:
    """Return the claims of a file; ``None`` if there are none that this operator signed."""
    try:
        return verify(path.read_text("ascii"))
    except (FileNotFoundError, UnicodeDecodeError, KcmError):
        return None


def _is(known: Claims, body: Mapping[str, Any]) -> bool:
    return {key: one for key, one in known.body.items() if key not in {"type", "version"}} == body
