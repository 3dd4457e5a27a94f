"""The bundles of a deployment: made in one place, and carried to each machine.

``authority/`` has the originals: the operator root, every private key, the regions' seal keys, the
keys of the broker operators and of the certificate authorities. It stays on the machine on which it
is made. Each bundle gets copies of only what its machine needs:

    REGION/INSTANCE      config.toml, roster, ca.pem, identity, region-bus and, as the role needs
                         them, control-bus, vault-bus and seal-key
    REGION/SERVER        nats.conf, server.pem, server.key, ca.pem; link.pem, link.key, link-ca.pem
                         and link.creds for the link to the backbone. If clients see certificates of
                         another authority, you add clients.pem and clients.key
    REGION/provision     config.toml, ca.pem and credentials of the job that creates the streams
    REGION/push          the accounts for running servers, for ``kcm broker push``
    backbone/SERVER      nats.conf, server.pem, server.key, ca.pem, links-ca.pem
    operators/NAME       context.toml, roster, keys, and for each region CA, credentials, signers

The names of secrets are those of the systemd units' credentials. A repetition changes nothing. The
kernel copies the keys, so they never become ``bytes`` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from kcm._internal import client_files
from kcm._internal.client_files import CONTEXT, ClientFiles, RegionFiles
from kcm_broker.roles import Account
from kcm_broker.roles import Role as BrokerRole
from kcm_runtime.files.private_files import copy_files, make_directory, write_private
from kcm_runtime.toml_text import to_toml
from kcm_schemas.roster import OperatorRole, Role, Roster

from kcm_deployment import settings_files
from kcm_deployment.broker_files import SETUP, Brokers
from kcm_deployment.deployment import Deployment, RegionPlan
from kcm_deployment.errors import DeploymentError
from kcm_deployment.layouts import CLIENT_PORT, CONFIG, Layout
from kcm_deployment.members import Member, Person
from kcm_deployment.originals import check_originals
from kcm_deployment.server_bundles import ServerBundles
from kcm_deployment.settings_files import (
    BusFiles,
    InstanceFiles,
    Settings,
)
from kcm_deployment.trust_files import Planned, Trust, known_roster, make_trust

AUTHORITY: Final = "authority"
"""The directory of the originals."""

PROVISION: Final = "provision"
"""The bundle, in that of each region, of the job that creates the streams."""

PUSH: Final = "push"
"""The bundle, in that of each region, of the accounts for running servers."""

BUSES: Final = {
    Account.REGION: "region-bus",
    Account.CONTROL: "control-bus",
    Account.VAULT: "vault-bus",
}
"""The file with an instance's credentials for an account."""


@dataclass(frozen=True, slots=True)
class Bundles:
    """The bundles of one deployment, below ``directory``."""

    directory: Path
    deployment: Deployment
    layout: Layout
    environment: Mapping[str, str]
    """The environment of a Core's unsealer."""
    brokers: Brokers
    settings: Settings

    @property
    def _trust(self) -> Trust:
        return Trust(self.directory / AUTHORITY)

    def write(self) -> None:
        """Write every bundle."""
        servers = ServerBundles(self.directory, self.deployment, self.layout, self.brokers)
        servers.write()
        for region in self.deployment.regions:
            for member in region.members:
                self._write_instance(region, member)
            self._write_provision(region)
            if self.layout.push:
                self._write_push(region)
        for person in self.deployment.operators:
            self._write_operator(person)

    def _ca(self, region: RegionPlan) -> Path:
        """Return the authority that clients of a region trust."""
        return region.ca or self.brokers.certificates(region.name).ca

    def _write_instance(self, region: RegionPlan, member: Member) -> None:
        place, role = self.layout.place(member), member.broker_role
        target = self.directory / self.layout.instance_bundle(member)
        sources = {
            "roster": self._trust.roster,
            "identity": self._trust.key(member.name),
            "ca.pem": self._ca(region),
        }
        for account, name in BUSES.items():
            credentials = self.brokers.user_file(region.name, role, account, member.name)
            if credentials.exists():
                sources[name] = credentials
        if member.role is Role.CORE:
            sources["seal-key"] = self._trust.seal_key(region.name)

        def bus(account: Account) -> BusFiles:
            ca = place.public / "ca.pem"
            return BusFiles(_urls(region), ca, place.secrets / BUSES[account])

        files = InstanceFiles(
            roster=place.public / "roster",
            identity=place.secrets / "identity",
            state_dir=place.state_dir,
            ready_file=place.ready_file,
            region_bus=bus(Account.REGION),
            control_bus=bus(Account.CONTROL),
            vault_bus=bus(Account.VAULT),
            seal_key=place.secrets / "seal-key",
            key_store=place.key_store,
            journal=place.journal,
        )
        environment = self.environment if member.role is Role.CORE else {}
        content = settings_files.instance(self.settings, member, files, environment)
        _fill(target, sources, CONFIG, content)
        if member.application is not None:  # no unit makes its state directory
            make_directory(target / place.state_dir)

    def _write_provision(self, region: RegionPlan) -> None:
        role, place = BrokerRole.PROVISIONER, self.layout.provision
        sources, buses = {"ca.pem": self._ca(region)}, {}
        for account in (Account.REGION, Account.VAULT):
            name = BUSES[account]
            sources[name] = self.brokers.user_file(region.name, role, account, SETUP)
            buses[account] = BusFiles(_urls(region), place / "ca.pem", place / name)
        content = settings_files.provisioning(
            region.name, buses[Account.REGION], buses[Account.VAULT], SETUP, len(region.servers)
        )
        _fill(self.directory / region.name / PROVISION, sources, CONFIG, content)

    def _write_push(self, region: RegionPlan) -> None:
        target, realm = self.directory / region.name / PUSH, self.brokers.realm(region.name)
        role, account = BrokerRole.PUSHER, Account.SYSTEM
        own = realm.own_scope()
        place = self.layout.provision
        content = {
            "operators": sorted(realm.operators),
            "nodes": len(region.servers),
            "system_account": own.account,
            "pusher": own.key,
            "tokens": list(self.brokers.trust(region.name, place).preload.values()),
            "bus": settings_files.bus(
                BusFiles(_urls(region), place / "ca.pem", place / "system-bus"), role, SETUP
            ),
        }
        sources = {
            "ca.pem": self._ca(region),
            "system-bus": self.brokers.user_file(region.name, role, account, SETUP),
        }
        _fill(target, sources, CONFIG, content)

    def _write_operator(self, person: Person) -> None:
        here, name = PurePosixPath, person.name
        admin = OperatorRole.ADMIN in person.roles
        app = self.deployment.applications[0] if self.deployment.applications else ""
        sources = {"roster": self._trust.roster, "operator.key": self._trust.key(name)}
        if app:
            sources["app.key"] = self._trust.key(app)
        regions = {}
        for region in self.deployment.regions:
            mine = here(region.name)
            role, account = BrokerRole.OPERATOR, Account.REGION
            credentials = self.brokers.user_file(region.name, role, account, name)
            sources |= {
                str(mine / "ca.pem"): self._ca(region),
                str(mine / "operator.creds"): credentials,
            }
            if admin:
                sources[str(mine / "signers")] = self.brokers.signers_file(region.name)
            regions[region.name] = RegionFiles(
                _urls(region),
                mine / "ca.pem",
                operator_credentials=mine / "operator.creds",
                app_credentials=mine / "app.creds" if app else None,
                signers=mine / "signers" if admin else None,
            )
        files = ClientFiles(
            roster=here("roster"),
            operator=(name, here("operator.key")),
            app=(app, here("app.key")) if app else None,
            regions=regions,
        )
        target = self.directory / self.layout.operator_bundle(name)
        content = client_files.context(self.settings.system, self.settings.root_public, files)
        _fill(target, sources, CONTEXT, content)


def write_bundles(
    directory: Path,
    deployment: Deployment,
    layout: Layout,
    now_ms: int,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Make what is missing, write every bundle, and return the operator root's public key.

    ``now_ms``, in milliseconds of Unix time, is the date of a new roster. ``environment`` is that
    of a Core's unsealer. Raises ``DeploymentError`` for a plan that cannot be, and if an original
    is missing: another one would lock instances and their data out permanently.
    """
    deployment.check_names()
    authority = directory / AUTHORITY
    roster = known_roster(authority)
    check_originals(directory, authority, deployment, layout, roster)
    if roster is not None:
        deployment = _without_retired(authority, deployment, roster)
    planned = Planned(
        deployment.system,
        deployment.names,
        deployment.members,
        deployment.operators,
        deployment.applications,
    )
    public = make_trust(authority, planned, now_ms)
    names = tuple(person.name for person in deployment.operators)
    brokers = Brokers(authority, deployment.names, deployment.members, names)
    if roster is not None:
        left = [one.operator for one in roster.operators if one.retired is not None]
        brokers.revoke_operators(left)
    brokers.make()
    settings = Settings(deployment.system, public, deployment.development)
    Bundles(directory, deployment, layout, environment or {}, brokers, settings).write()
    return public


def _without_retired(authority: Path, deployment: Deployment, roster: Roster) -> Deployment:
    """Return the deployment without the instances and operators that the roster has as retired.

    Raises ``DeploymentError`` if an active one would leave the roster.
    """
    if roster.system != deployment.system:
        raise DeploymentError(
            f"the roster is of the system {roster.system}, and the plan of {deployment.system}",
            hint="the name of a system cannot change: correct the plan, or name another directory",
        )
    planned = {one.name for one in deployment.members}
    planned |= {one.name for one in deployment.operators}
    active = {one.instance for one in roster.instances if one.retired is None}
    active |= {one.operator for one in roster.operators if one.retired is None}
    if missing := sorted(active - planned):
        raise DeploymentError(
            f"{missing[0]} is on the roster and not in the plan",
            hint=f"`kcm roster retire {missing[0]}` retires it; then copy the new roster to"
            f" {authority / 'roster'}, and give the command again",
        )
    gone = {one.instance for one in roster.instances if one.retired is not None}
    left = {one.operator for one in roster.operators if one.retired is not None}
    return replace(
        deployment,
        operators=tuple(one for one in deployment.operators if one.name not in left),
        regions=tuple(
            replace(region, members=tuple(one for one in region.members if one.name not in gone))
            for region in deployment.regions
        ),
    )


def _urls(region: RegionPlan) -> list[str]:
    return [f"tls://{server.host}:{CLIENT_PORT}" for server in region.servers]


def _fill(target: Path, sources: Mapping[str, Path], name: str, content: Mapping[str, Any]) -> None:
    """Copy the files of a bundle, then write the configuration that names them."""
    copy_files(target, sources)
    write_private(target / name, to_toml(content))
