"""The TOML files of instances and clients.

A container reads its configuration in other directories than those in which it was written. So the
paths in a configuration (``InstanceFiles``, ``ClientFiles``) do not depend on where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, assert_never

from kcm._internal.client_context import VERSION
from kcm_killswitch.model.timing import Timing
from kcm_schemas.roster import Role

from kcm_devsystem.broker_rights import inbox
from kcm_devsystem.broker_users import password_path
from kcm_devsystem.brokers import Account, RegionSpec, login_name
from kcm_devsystem.brokers import Role as Login
from kcm_devsystem.files import write_private
from kcm_devsystem.identities import APP, APPROVER, OPERATOR, SYSTEM, Member, Trust
from kcm_devsystem.topology import Topology, Write

DEFAULT_TIMING: Final = Timing()
"""The durations of an instance without a section for them. They are not written."""


@dataclass(frozen=True, slots=True)
class InstanceFiles:
    """The paths of an instance's files. A configuration names only those of its role."""

    roster: PurePath
    identity: PurePath
    state_dir: PurePath
    ready_file: PurePath
    region_bus: PurePath
    """The password of its user in REGION; ``control_bus`` has the one for CONTROL."""
    control_bus: PurePath
    vault_bus: PurePath
    """For now, the same password as ``region_bus``: wrapped keys are in REGION, too."""
    seal_key: PurePath
    key_store: PurePath
    journal: PurePath
    followed: Mapping[str, PurePath] = field(default_factory=dict)
    """By region that an Auditor follows: the password of its user there."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """The paths of a client's files: absolute, or relative to its context file."""

    roster: PurePath
    operator_key: PurePath
    app_key: PurePath
    password: Callable[[str, Login], PurePath]
    """By region and role, the password of the user in REGION."""


def ready_file(root: Path, member: Member) -> Path:
    """Return the file that an instance creates once it serves."""
    return root / "run" / f"{member.name}.ready"


def config_file(root: Path, member: Member) -> Path:
    """Return the path of an instance's configuration."""
    return root / "config" / f"{member.name}.toml"


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
    root, trust, login = topology.root, Trust(topology.root), Login(member.role.value)
    store = root / "keystore" / member.region
    if member.role is Role.CORE:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = InstanceFiles(
        roster=trust.roster,
        identity=trust.key(member.name),
        state_dir=root / "state" / member.name,
        ready_file=ready_file(root, member),
        region_bus=password_path(root, member.region, login, Account.REGION),
        control_bus=password_path(root, member.region, login, Account.CONTROL),
        vault_bus=password_path(root, member.region, login, Account.REGION),
        seal_key=trust.seal_key(member.region),
        key_store=store,
        journal=root / "journal",
        followed={
            spec.name: password_path(root, spec.name, login, Account.REGION)
            for spec in topology.regions
        },
    )
    path = config_file(root, member)
    config = instance(topology, member, root_public, environment, files, timing)
    if member.role is Role.CORE and probes_per_s is not None:
        config |= {"probes_per_s": probes_per_s}
    write(path, to_toml(config))
    return path


def instance(
    topology: Topology,
    member: Member,
    root_public: bytes,
    environment: Mapping[str, str],
    files: InstanceFiles,
    timing: Timing = DEFAULT_TIMING,
) -> dict[str, Any]:
    """Return the content of an instance's configuration, without default durations."""
    spec, login = topology.region(member.region), Login(member.role.value)
    config: dict[str, Any] = {
        "instance": member.name,
        "region": member.region,
        "development": True,
        "root_public": root_public.hex(),
        "roster": files.roster,
        "identity": files.identity,
        "state_dir": files.state_dir,
        "ready_file": files.ready_file,
        "region_bus": bus(spec, login, Account.REGION, files.region_bus, name=member.name),
    }
    match member.role:
        case Role.CORE:
            config |= {
                "control_bus": bus(
                    spec, login, Account.CONTROL, files.control_bus, name=member.name
                ),
                "vault_bus": bus(spec, login, Account.REGION, files.vault_bus, name=member.name),
                "key_store": files.key_store,
                "secrets": {"seal_key": files.seal_key},
                "unsealer_environment": dict(environment),
            }
        case Role.GATEWAY:
            control = bus(spec, login, Account.CONTROL, files.control_bus, name=member.name)
            config |= {"control_bus": control}
        case Role.AUDITOR:
            config |= {
                "auditor": {"journal": files.journal},
                "regions": [
                    {"region": name}
                    | bus(topology.region(name), login, Account.REGION, password, name=member.name)
                    for name, password in files.followed.items()
                ],
            }
        case _:
            assert_never(member.role)
    if timing == DEFAULT_TIMING or member.role is Role.AUDITOR:
        return config
    return config | {"timing": asdict(timing)}


def write_context(topology: Topology, root_public: bytes, write: Write = write_private) -> Path:
    """Write the context file of clients on this machine and return its path.

    Beside it, ``approver.toml`` is that of a second operator.
    """
    root = topology.root
    files = ClientFiles(
        roster=Trust(root).roster,
        operator_key=Trust(root).operator_key,
        app_key=Trust(root).app_key,
        password=lambda region, role: password_path(root, region, role, Account.REGION),
    )
    path = root / "context.toml"
    content = context(topology, root_public, files)
    write(path, to_toml(content))
    approver = {"name": APPROVER, "key": Trust(root).key(APPROVER)}
    write(root / "approver.toml", to_toml(content | {"operator": approver}))
    return path


def context(topology: Topology, root_public: bytes, files: ClientFiles) -> dict[str, Any]:
    """Return the content of a client's context file."""
    return {
        "version": VERSION,
        "system": SYSTEM,
        "root_public": root_public.hex(),
        "roster": files.roster,
        "default_region": topology.regions[0].name,
        "operator": {"name": OPERATOR, "key": files.operator_key},
        "app": {"name": APP, "key": files.app_key},
        "regions": {spec.name: _access(spec, files) for spec in topology.regions},
    }


def _access(spec: RegionSpec, files: ClientFiles) -> dict[str, Any]:
    access: dict[str, Any] = _urls(spec)
    for role in (Login.APP, Login.OPERATOR):
        access[f"{role.value}_user"] = login_name(role, Account.REGION)
        access[f"{role.value}_password_file"] = files.password(spec.name, role)
    return access


def bus(
    spec: RegionSpec, role: Login, account: Account, password: PurePath, *, name: str
) -> dict[str, Any]:
    """Return the access of a role to an account of a region's broker; ``password`` is a file.

    ``name`` is that of the instance or job: the place of its inboxes.
    """
    return _urls(spec) | {
        "user": login_name(role, account),
        "password_file": password,
        "inbox": inbox(role, name),
    }


def _urls(spec: RegionSpec) -> dict[str, Any]:
    """Return the URLs of a region's broker: one node, and the others if it is a cluster."""
    others = [node.url for node in spec.others]
    return {"url": spec.url} | ({"also": others} if others else {})


def to_toml(config: Mapping[str, Any]) -> str:
    """Return TOML for plain values, paths, tables and arrays of tables."""
    return "".join(_table(config, ""))


def _table(table: Mapping[str, Any], name: str) -> list[str]:
    lines = [
        f"{key} = {_value(value)}\n"
        for key, value in table.items()
        if not isinstance(value, Mapping) and not _is_tables(value)
    ]
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            lines += [f"\n[{path}]\n", *_table(value, path)]
        elif _is_tables(value):
            for one in value:
                lines += [f"\n[[{path}]]\n", *_table(one, path)]
    return lines


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object) -> str:
    # JSON strings, numbers and booleans are valid TOML.
    return json.dumps(str(value) if isinstance(value, PurePath) else value)
