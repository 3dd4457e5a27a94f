"""The brokers' part of a deployment, below one directory.

    realms/REGION/            the broker operator of a region: ``kcm_broker.realm``
    realms/backbone/          the one of the backbone
    certificates/REGION/      the authority of a region's servers: ``certificate_files``
    certificates/backbone/    the authority of the backbone's servers
    certificates/links/       the authority of the certificates with which regions enter it
    users/REGION/             the credentials of each client of a region, and ``signers``
    users/backbone/           the credentials of each region's link

All of it is made once and kept; a repetition adds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final

from kcm_broker import server_configuration as configuration
from kcm_broker import signers
from kcm_broker.accounts import WITH_STREAMS, ScopeId, peering_of, unrestricted
from kcm_broker.certificate_files import CertificateFiles
from kcm_broker.realm import Realm, RightsOf
from kcm_broker.rights import TABLE, rights
from kcm_broker.roles import INSTANCE_ROLES, Account, inbox_prefix
from kcm_broker.roles import Role as BrokerRole
from kcm_broker.signers import Signers
from kcm_runtime.clock import Clock, SystemClock
from kcm_runtime.nats import credentials
from kcm_schemas.roster import Role

from kcm_deployment.members import Member

BACKBONE: Final = "backbone"

LINKS: Final = "links"
"""The authority of links: a region's server enters the backbone as a leaf, never as a server."""

IN_REGION: Final = (Account.REGION, Account.CONTROL, Account.VAULT)
"""The accounts of a region that have clients of ours."""

SETUP: Final = "setup"
"""The name of the users that set a region up."""

MAINTENANCE: Final = "maintenance"
"""The signing key, in accounts with streams, for credentials of some hours that may do all."""


def maintenance(realm: Realm, account: Account) -> list[Mapping[str, Any]]:
    """Return the signing key for maintenance of an account, if it has streams."""
    if account not in WITH_STREAMS:
        return []
    return [unrestricted(realm.key(account.value, MAINTENANCE).public, MAINTENANCE)]


@dataclass(frozen=True, slots=True)
class Brokers:
    """The broker operators, certificates and users of all regions and of the backbone."""

    root: Path
    regions: tuple[str, ...]
    members: tuple[Member, ...]
    operators: tuple[str, ...] = ()
    follow_all: bool = False
    """Whether each Auditor follows every region, and not its own only."""
    clock: Clock = field(default_factory=SystemClock, compare=False)
    rights_of: RightsOf = rights
    more_keys: Callable[[Realm, Account], Sequence[Mapping[str, Any]]] = maintenance
    """Further signing keys of an account."""

    def make(self) -> None:
        """Make every missing key, token and user; raises as ``Realm`` does, and ``OSError``."""
        self.backbone.operator()
        self._make_accounts(self.backbone, BACKBONE)
        for region in self.regions:
            link = ScopeId(BrokerRole.LEAF, Account.BACKBONE)
            self.backbone.user(self.link_file(region), link, region, label=region)
            self._make_region(region)

    def revoke_operators(self, names: Iterable[str]) -> list[str]:
        """Revoke the users of operators in every region, and return the users' public keys."""
        role, account = BrokerRole.OPERATOR, Account.REGION
        return [
            user
            for name in names
            for region in self.regions
            for user in self.revoke(region, [self.user_file(region, role, account, name)])
        ]

    def revoke(self, region: str, files: Iterable[Path]) -> list[str]:
        """Revoke the users of credentials files, as far as they exist, and remove the files.

        ``make`` makes new ones for those that the plan has.
        """
        found = []
        for path in files:
            if path.exists():
                user = credentials.read(path).key.public
                account = path.stem.rpartition("-")[2]
                self.realm(region).revoke(account, user)
                path.unlink()
                found.append(user)
        return found

    def revoke_application(self, region: str, name: str, public_key: bytes) -> list[str]:
        """Revoke what an application with this key (32 bytes) enters with, and return the users."""
        mine, realm = signers.read(self.signers_file(region)), self.realm(region)
        found = [mine.user_key(role, name, public_key).public for role in signers.SIGNED]
        for user in found:
            realm.revoke(Account.REGION.value, user)
        return found

    def replace_signers(self, region: str) -> None:
        """Make other keys that sign the credentials of applications: all that exist end."""
        for role in signers.SIGNED:
            self.realm(region).replace_scope(ScopeId(role, Account.REGION))

    def realm(self, region: str) -> Realm:
        """Return the broker operator of a region."""
        return Realm(self.root / "realms" / region, region, self.clock, self.rights_of)

    @property
    def backbone(self) -> Realm:
        """The broker operator of the backbone."""
        return self.realm(BACKBONE)

    def certificates(self, broker: str) -> CertificateFiles:
        """Return the authority of a region's servers, or of the backbone."""
        place = self.root / "certificates" / broker
        return CertificateFiles(place, f"{broker}-ca", self.clock)

    def tls(self, broker: str, server: str, addresses: Sequence[str]) -> configuration.Tls:
        """Return a server's certificate by the authority of a broker; it is made if missing."""
        files = self.certificates(broker)
        files.server(server, addresses)
        path = files.certificate(server)
        return configuration.Tls(path, path.with_suffix(".key"), files.ca)

    def link_tls(self, server: str, addresses: Sequence[str]) -> configuration.Tls:
        """Return the certificate of a region's server for its link, and whom it trusts there."""
        own = self.tls(LINKS, server, addresses)
        return replace(own, ca=self.certificates(BACKBONE).ca)

    def trust(self, broker: str, directory: PurePath) -> configuration.Trust:
        """Return whom a server of a region, or of the backbone, believes.

        ``directory`` is where the server keeps the accounts that were pushed to it.
        """
        realm = self.realm(broker)
        tokens = {
            realm.public(label): token
            for label, token in self._make_accounts(realm, broker).items()
        }
        system = realm.public(Account.SYSTEM)
        return configuration.Trust(realm.operator(), system, tokens, directory)

    def instances(self, region: str) -> Iterator[tuple[BrokerRole, str]]:
        """Return the instances with a signing key of their own in a region."""
        for one in self.members:
            if one.application is None and self._has(region, one):
                yield one.broker_role, one.name

    def _has(self, region: str, member: Member) -> bool:
        return member.region == region or (self.follow_all and member.role is Role.AUDITOR)

    def link_file(self, region: str) -> Path:
        """Return the credentials of a region's link to the backbone."""
        return self.root / "users" / BACKBONE / f"{region}.creds"

    def signers_file(self, region: str) -> Path:
        """Return the file with which an operator lets applications in."""
        return self.root / "users" / region / "signers"

    def user_file(self, region: str, role: BrokerRole, account: Account, name: str) -> Path:
        """Return the credentials of a client of a region."""
        return self.root / "users" / region / f"{role}-{name}-{account}.creds"

    def _make_region(self, region: str) -> None:
        realm = self.realm(region)
        self._make_accounts(realm, region)
        for scope, name, grants in self._users(region):
            path = self.user_file(region, scope.role, scope.account, name)
            realm.user(path, scope, name, grants)
        keys = {role: realm.scope(ScopeId(role, Account.REGION)) for role in signers.SIGNED}
        made = Signers(realm.public(Account.REGION), keys)
        path = self.signers_file(region)
        if not path.exists() or path.read_text("ascii") != signers.to_text(made):
            signers.write(path, made)

    def _make_accounts(self, realm: Realm, broker: str) -> dict[str, str]:
        """Make the accounts of a broker that are missing; return all tokens by their labels."""
        found = {Account.SYSTEM.value: realm.account(Account.SYSTEM)}
        if broker == BACKBONE:
            accounts = {region: realm.public(region) for region in self.regions}
            for region in self.regions:
                peering = peering_of(region, accounts)
                found[region] = realm.account(Account.BACKBONE, label=region, peering=peering)
            return found
        for account in IN_REGION:
            more = self.more_keys(realm, account)
            own = list(self.instances(broker))
            found[account.value] = realm.account(account, own, more=more)
        return found

    def _users(self, region: str) -> Iterator[tuple[ScopeId, str, Sequence[str]]]:
        """Yield the scope, the name and the grants of each user of a region."""
        for one in self.members:
            for account in accounts_of(one.broker_role) if self._has(region, one) else ():
                own = "" if one.application else one.name
                grants = one.broker_grants if account is Account.REGION else ()
                yield ScopeId(one.broker_role, account, own), one.name, grants
        for name in self.operators:
            yield ScopeId(BrokerRole.OPERATOR, Account.REGION), name, ()
        for account in accounts_of(BrokerRole.PROVISIONER):
            yield ScopeId(BrokerRole.PROVISIONER, account), SETUP, ()
        yield ScopeId(BrokerRole.PUSHER, Account.SYSTEM), SETUP, ()


def accounts_of(role: BrokerRole) -> tuple[Account, ...]:
    """Return the accounts in which a role has rights."""
    return tuple(account for one, account in TABLE if one is role)


def inbox_of(role: BrokerRole, name: str) -> str:
    """Return where a client receives replies: an instance by its name, others by their key."""
    named = role in INSTANCE_ROLES or role is BrokerRole.EMBEDDED
    return inbox_prefix(role, name) if named else f"_INBOX.{role}"
