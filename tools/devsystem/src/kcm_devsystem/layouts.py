"""The files of ``compose.yaml``: created in one place, and copied to each container.

``authority/`` has the originals of all secrets: the operator root, every private key, the regions'
seal keys and all passwords. Only setup sees it. Each directory below gets copies of only what its
container needs, so that it can be mounted as one volume:

    backbone/nats.conf               the backbone's broker
    REGION/broker/nats.conf          a region's broker
    REGION/core-N/                   a Core; only Cores have a seal key
    REGION/gateway-N/, auditor-N/    config.toml, roster, identity, passwords
    REGION/provision/                the job that creates the region's streams
    operator/                        the command line: context.toml, two keys, two passwords
                                     per region

The names are those of the systemd units' credentials. A repetition changes nothing. The kernel
copies the keys, so they never become ``bytes`` here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from kcm_runtime.files.atomic import placing
from kcm_schemas.roster import Role
from kcm_trust.identity import ROOT

from kcm_devsystem import containers, state
from kcm_devsystem.broker_users import password_path
from kcm_devsystem.brokers import Account
from kcm_devsystem.brokers import Role as Login
from kcm_devsystem.configs import ClientFiles, InstanceFiles, bus, context, instance, to_toml
from kcm_devsystem.containers import (
    AUTHORITY,
    CONFIG_DIR,
    HSM_MODULE,
    HSM_SOCKET,
    INSTANCES,
    KEY_STORE,
    OPERATOR,
    PROVISION,
    READY_FILE,
    REGIONS,
    STATE_DIR,
)
from kcm_devsystem.errors import DevError
from kcm_devsystem.files import write_private
from kcm_devsystem.identities import Member, Trust, make_trust
from kcm_devsystem.topology import Topology

CONFIG: Final = "config.toml"
"""A container's configuration, in its directory."""

COPY_BYTES_MAX: Final = 1 << 20
"""Maximum bytes of a copied file: a roster of thousands of instances."""

_HERE: Final = InstanceFiles(
    roster=CONFIG_DIR / "roster",
    identity=CONFIG_DIR / "identity",
    state_dir=STATE_DIR / "state",
    ready_file=READY_FILE,
    region_bus=CONFIG_DIR / "region-bus",
    control_bus=CONFIG_DIR / "control-bus",
    vault_bus=CONFIG_DIR / "region-bus",
    seal_key=CONFIG_DIR / "seal-key",
    key_store=KEY_STORE,
    journal=STATE_DIR / "journal",
)
"""The paths of the files in every container. An Auditor follows only its own region, because no
network of ``compose.yaml`` connects it to another region's broker."""

_ENVIRONMENT: Final = {
    "P11_KIT_SERVER_ADDRESS": f"unix:path={HSM_SOCKET}",
    "KCM_L1_MODULES": str(HSM_MODULE),
}
"""The environment of a Core's unsealer, for an image with the module."""


@dataclass(frozen=True, slots=True)
class _Plan:
    topology: Topology
    trust: Trust
    root_public: bytes

    def password(self, region: str, role: Login, account: Account) -> Path:
        return password_path(self.trust.root, region, role, account)


def member(region: str, container: str) -> Member:
    """Return the instance of a container: ``core-2`` of ``eu-de`` is ``core-eu-de-2``."""
    role, _, number = container.rpartition("-")
    return Member(Role(role), region, int(number))


def write_compose(directory: Path, now_ms: int, regions: Sequence[str] = REGIONS) -> bytes:
    """Write every container's files below ``directory`` and return the root's public key.

    ``now_ms``, in milliseconds of Unix time, is the date of a new roster. Raises ``DevError`` if
    another setup runs, and if containers have files but the authority is missing. A new authority
    would lock these containers and their data out permanently.
    """
    authority = directory / AUTHORITY
    for place in (authority / "secrets", *(directory / region for region in regions)):
        _make_private(place)
    with state.exclusive(authority):
        _check_authority(directory, regions)
        members = [member(region, name) for region in regions for name in INSTANCES]
        topology = containers.write_brokers(directory, regions)
        root_public = make_trust(authority, members, list(regions), now_ms)
        plan = _Plan(topology, Trust(authority), root_public)
        for region in regions:
            for name in INSTANCES:
                _write_instance(
                    plan, containers.instance_dir(directory, region, name), region, name
                )
            _write_provision(plan, directory / region / PROVISION, region)
        _write_operator(plan, directory / OPERATOR)
        return root_public


def _check_authority(directory: Path, regions: Sequence[str]) -> None:
    if Trust(directory / AUTHORITY).key(ROOT).exists():
        return
    for region in regions:
        for name in INSTANCES:
            if (containers.instance_dir(directory, region, name) / CONFIG).exists():
                raise DevError(
                    f"{region}/{name} is set up, but its authority is missing",
                    hint="restore it from a backup, or remove all volumes to start over",
                )


def _write_instance(plan: _Plan, target: Path, region: str, name: str) -> None:
    one = member(region, name)
    login = Login(one.role.value)
    sources = {
        _HERE.roster: plan.trust.roster,
        _HERE.identity: plan.trust.key(one.name),
        _HERE.region_bus: plan.password(region, login, Account.REGION),
    }
    if one.role is not Role.AUDITOR:
        sources[_HERE.control_bus] = plan.password(region, login, Account.CONTROL)
    if one.role is Role.CORE:
        sources[_HERE.seal_key] = plan.trust.seal_key(region)
    environment = _ENVIRONMENT if one.role is Role.CORE else {}
    config = instance(plan.topology, one, plan.root_public, environment, _HERE)
    _fill(target, {path.name: source for path, source in sources.items()}, CONFIG, config)


def _write_provision(plan: _Plan, target: Path, region: str) -> None:
    spec = plan.topology.region(region)
    address = bus(spec, Login.PROVISIONER, Account.REGION, _HERE.region_bus, name=PROVISION)
    config = {"region": region, "region_bus": address, "vault_bus": address}
    password = plan.password(region, Login.PROVISIONER, Account.REGION)
    _fill(target, {_HERE.region_bus.name: password}, CONFIG, config)


def _write_operator(plan: _Plan, target: Path) -> None:
    files = ClientFiles(
        roster=PurePosixPath("roster"),
        operator_key=PurePosixPath("operator.key"),
        app_key=PurePosixPath("app.key"),
        password=lambda region, role: PurePosixPath("secrets") / region / role.value,
    )
    sources = {
        str(files.roster): plan.trust.roster,
        str(files.operator_key): plan.trust.operator_key,
        str(files.app_key): plan.trust.app_key,
    }
    for spec in plan.topology.regions:
        for role in (Login.APP, Login.OPERATOR):
            source = plan.password(spec.name, role, Account.REGION)
            sources[str(files.password(spec.name, role))] = source
    content = context(plan.topology, plan.root_public, files)
    _fill(target, sources, "context.toml", content)


def _fill(target: Path, sources: Mapping[str, Path], name: str, content: Mapping[str, Any]) -> None:
    """Copy the files of a container, then write the configuration that names them."""
    for relative, source in sources.items():
        copy_private(source, target / relative)
    write_private(target / name, to_toml(content))


def copy_private(source: Path, target: Path) -> None:
    """Replace ``target`` atomically with a copy of mode 0600, and flush it to the disk.

    The kernel copies the bytes. Raises ``DevError`` for a file above ``COPY_BYTES_MAX``.
    """
    _make_private(target.parent)
    with source.open("rb", buffering=0) as reading:
        size = os.fstat(reading.fileno()).st_size
        if size > COPY_BYTES_MAX:
            raise DevError(f"{source} is too large for a file of the system")
        with placing(target) as file:
            done = 0
            while done < size:
                sent = os.sendfile(file.fileno(), reading.fileno(), done, size - done)
                if not sent:
                    raise DevError(f"{source} was truncated while it was copied")
                done += sent


def _make_private(directory: Path) -> None:
    """Create a directory and its missing parents with mode 0700."""
    if not directory.is_dir():
        _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
