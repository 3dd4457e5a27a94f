"""The clients of a development system's brokers, and the visitor of tests.

A visitor may publish and subscribe everything in an account. Only a system that is asked for one
has the signing keys of visitors in its accounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kcm._internal.client_context import ClientContext
from kcm_broker import signers
from kcm_broker.accounts import ScopeId, unrestricted
from kcm_broker.claims import APPLICATION_VERBS, User, user_token
from kcm_broker.key_files import kept_key
from kcm_broker.realm import Issuer, Realm, kept_user
from kcm_broker.rights import rights
from kcm_broker.roles import Account, Rights, Role
from kcm_deployment.broker_files import IN_REGION, Brokers, maintenance
from kcm_deployment.members import Member
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import KeyKind, SigningKey

from kcm_devsystem.identities import APP, OPERATORS

VISITOR: Final = "visitor"
"""The name and the role of a visitor."""

VISITOR_INBOX: Final = f"_INBOX.{VISITOR}.test"
"""Where a visitor receives replies. Every instance may answer there."""

EVERYTHING: Final = tuple(f"{verb}.*.*" for verb in sorted(APPLICATION_VERBS))
"""The grants of an application that may ask for every tenant."""

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Users:
    """Who may connect: the instances, and with ``visitor`` one for whom nothing is refused."""

    members: tuple[Member, ...] = ()
    visitor: bool = False


USERS: Final = Users()
"""The users of brokers without instances."""


def brokers_of(root: Path, regions: Sequence[str], users: Users) -> Brokers:
    """Return the operators, certificates and users of a system's brokers, not made yet."""
    brokers = Brokers(
        root,
        tuple(regions),
        users.members,
        tuple(person.name for person in OPERATORS),
        follow_all=True,
    )
    if not users.visitor:
        return brokers
    return replace(brokers, rights_of=_answering, more_keys=lambda *own: _visitors(root, *own))


def make_users(brokers: Brokers, users: Users) -> None:
    """Make all keys, tokens and credentials that are missing."""
    brokers.make()
    for region in brokers.regions:
        if not (path := app_credentials(brokers.root, region)).exists():
            let_in(brokers.signers_file(region), path, APP, ())
        for account in IN_REGION if users.visitor else ():
            _make_visitor(brokers, region, account)


def app_credentials(root: Path, region: str) -> Path:
    """Return the credentials of the context's application in a region."""
    return root / "users" / region / "app.creds"


def let_in(
    signers_file: Path, path: Path, name: str, grants: Sequence[str], role: Role = Role.APPLICATION
) -> None:
    """Write the credentials of an application with these grants (``decrypt.acme.mail``)."""
    mine = signers.read(signers_file)
    scope = ScopeId(role, Account.REGION)
    kept_user(path, Issuer(mine.keys[role], scope, mine.account, _CLOCK), name, grants)


def visitors_address(
    context: ClientContext, root: Path, region: str, account: Account = Account.REGION
) -> BusAddress:
    """Return how a system with a visitor lets it in."""
    at = context.operator_address(region)
    return at.model_copy(
        update={
            "credentials": visitor_file(root, region, account),
            "inbox": VISITOR_INBOX,
        }
    )


def visitor_file(root: Path, region: str, account: Account) -> Path:
    """Return the credentials of a visitor."""
    return root / "users" / region / f"{VISITOR}-{account}.creds"


def _make_visitor(brokers: Brokers, region: str, account: Account) -> None:
    path = visitor_file(brokers.root, region, account)
    if not path.exists():
        key = SigningKey.generate(KeyKind.USER)
        signer = _visitor_key(brokers.root, region, account)
        public = brokers.realm(region).public(account)
        token = user_token(signer, public, User(key.public, VISITOR), _CLOCK.unix_ms() // 1000)
        credentials.write(path, Credentials(token, key))


def _visitor_key(root: Path, region: str, account: Account) -> SigningKey:
    return kept_key(root / "users" / region / f"{VISITOR}-{account}.seed", KeyKind.ACCOUNT)


def _visitors(root: Path, realm: Realm, account: Account) -> Sequence[Mapping[str, Any]]:
    key = _visitor_key(root, realm.name, account)
    return [*maintenance(realm, account), unrestricted(key.public, VISITOR)]


def _answering(role: Role, account: Account, region: str, instance: str) -> Rights:
    """Return the rights of a role, which may also answer a visitor."""
    found = rights(role, account, region, instance)
    if role is Role.PUSHER or role is Role.LEAF:
        return found
    return replace(found, publish=(*found.publish, f"_INBOX.{VISITOR}.>"))
