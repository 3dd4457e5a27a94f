"""The configurations of the instances and clients on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kcm._internal import client_files
from kcm._internal.client_files import CONTEXT, ClientFiles, RegionFiles
from kcm_broker.roles import Account
from kcm_broker.roles import Role as BrokerRole
from kcm_deployment import settings_files
from kcm_deployment.members import Member
from kcm_deployment.settings_files import (
    BusFiles,
    InstanceFiles,
    Settings,
)
from kcm_deployment.trust_files import Trust
from kcm_killswitch.model.timing import Timing
from kcm_runtime.config import BusAddress
from kcm_runtime.files.private_files import write_private
from kcm_runtime.toml_text import to_toml
from kcm_schemas.roster import Role

from kcm_devsystem.broker_users import VISITOR_INBOX, app_credentials, visitor_file
from kcm_devsystem.identities import APP, APPROVER, OPERATOR, SYSTEM
from kcm_devsystem.topology import Topology, Write


def ready_file(root: Path, member: Member) -> Path:
    """Return the file that an instance creates once it serves."""
    return root / "run" / f"{member.name}.ready"


def config_file(root: Path, member: Member) -> Path:
    """Return the path of an instance's configuration."""
    return root / "config" / f"{member.name}.toml"


def bus_files(
    topology: Topology, region: str, role: BrokerRole, account: Account, name: str
) -> BusFiles:
    """Return how a client enters an account of a region's broker."""
    brokers = topology.brokers
    return BusFiles(
        urls=[node.url for node in topology.region(region).nodes],
        ca=brokers.certificates(region).ca,
        credentials=brokers.user_file(region, role, account, name),
    )


def address(
    topology: Topology, region: str, role: BrokerRole, account: Account, name: str
) -> BusAddress:
    """Return the same as the address of a connection."""
    files = bus_files(topology, region, role, account, name)
    return BusAddress.model_validate(settings_files.bus(files, role, name))


def visitor(topology: Topology, region: str, account: Account = Account.REGION) -> BusAddress:
    """Return how a visitor enters an account of a region's broker."""
    spec = topology.region(region)
    return BusAddress(
        url=spec.url,
        also=tuple(node.url for node in spec.others),
        ca=topology.brokers.certificates(region).ca,
        credentials=visitor_file(topology.root, region, account),
        inbox=VISITOR_INBOX,
    )


def write_instance(
    topology: Topology,
    member: Member,
    root_public: bytes,
    environment: Mapping[str, str],
    timing: Timing,
    probes_per_s: float | None = None,
    write: Write = write_private,
) -> Path:
    """Write the configuration of an instance on this machine and return its path.

    ``environment`` is the environment of a Core's unsealer. ``probes_per_s`` replaces the default
    of a Core. ``write`` writes the file.
    """
    root, trust, role = topology.root, Trust(topology.root), member.broker_role
    store = root / "keystore" / member.region
    if member.role is Role.CORE:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)

    def files_of(region: str, account: Account) -> BusFiles:
        return bus_files(topology, region, role, account, member.name)

    files = InstanceFiles(
        roster=trust.roster,
        identity=trust.key(member.name),
        state_dir=root / "state" / member.name,
        ready_file=ready_file(root, member),
        region_bus=files_of(member.region, Account.REGION),
        control_bus=files_of(member.region, Account.CONTROL),
        vault_bus=files_of(member.region, Account.VAULT),
        seal_key=trust.seal_key(member.region),
        key_store=store,
        journal=root / "journal",
        followed={spec.name: files_of(spec.name, Account.REGION) for spec in topology.regions},
    )
    path = config_file(root, member)
    settings = Settings(SYSTEM, root_public, development=True)
    durations = None if timing == Timing() else asdict(timing)
    config = settings_files.instance(settings, member, files, environment, durations)
    if member.role is Role.CORE and probes_per_s is not None:
        config |= {"probes_per_s": probes_per_s}
    write(path, to_toml(config))
    return path


def write_context(topology: Topology, root_public: bytes, write: Write = write_private) -> Path:
    """Write the context file of clients on this machine and return its path.

    Beside it, ``approver.toml`` is that of a second operator.
    """
    root = topology.root
    path = root / CONTEXT
    for name, target in ((OPERATOR, path), (APPROVER, root / "approver.toml")):
        write(target, to_toml(_context(topology, root_public, name)))
    return path


def _context(topology: Topology, root_public: bytes, operator: str) -> dict[str, object]:
    root, brokers, trust = topology.root, topology.brokers, Trust(topology.root)
    files = ClientFiles(
        roster=trust.roster,
        operator=(operator, trust.key(operator)),
        app=(APP, trust.key(APP)),
        regions={
            spec.name: RegionFiles(
                [node.url for node in spec.nodes],
                brokers.certificates(spec.name).ca,
                operator_credentials=brokers.user_file(
                    spec.name, BrokerRole.OPERATOR, Account.REGION, operator
                ),
                app_credentials=app_credentials(root, spec.name),
                signers=brokers.signers_file(spec.name),
            )
            for spec in topology.regions
        },
    )
    return client_files.context(SYSTEM, root_public, files)
