"""The TOML files of instances and clients.

A file may be read elsewhere than it was written: a container sees its own directories. So what a
configuration names (``InstanceFiles``, ``ClientFiles``) is independent of where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, assert_never

from kcm_killswitch.model.timing import Timing
from kcm_schemas.roster import Role

from kcm_devsystem.brokers import Account, RegionSpec, login_name
from kcm_devsystem.brokers import Role as Login
from kcm_devsystem.files import write_private
from kcm_devsystem.identities import OPERATOR, SYSTEM, Member, Trust
from kcm_devsystem.topology import Topology, Write, password_path

DEFAULT_TIMING: Final = Timing()
"""What an instance goes by whose configuration says nothing; then nothing is written."""


@dataclass(frozen=True, slots=True)
class InstanceFiles:
    """Where an instance finds its files. Those that its role does not have are not named in it."""

    roster: PurePath
    identity: PurePath
    state_dir: PurePath
    ready_file: PurePath
    region_bus: PurePath
    """The password of its user in REGION; ``control_bus`` that in CONTROL."""
    control_bus: PurePath
    seal_key: PurePath
    hpke_key: PurePath
    key_store: PurePath
    journal: PurePath
    followed: Mapping[str, PurePath] = field(default_factory=dict)
    """By region that an Auditor follows, its own or another: the password of its user there."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Where a client finds its files: absolute, or from the directory of its context file."""

    roster: PurePath
    operator_key: PurePath
    password: Callable[[str, Login], PurePath]
    """By region and role, the password of its user in REGION."""


def ready_file(root: Path, member: Member) -> Path:
    """The file that an instance makes once it serves."""
    return root / "run" / f"{member.name}.ready"


def config_file(root: Path, member: Member) -> Path:
    """An instance's configuration."""
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

    ``environment`` is what the unsealer of a Core gets, ``probes_per_s`` how often a Core uses keys
    where it is not as often as usual. ``write`` writes the file.
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
        seal_key=trust.seal_key(member.region),
        hpke_key=trust.hpke_key(member.region),
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
    """The content of an instance's configuration; the usual durations are not spelled out."""
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
        "region_bus": bus(spec, login, Account.REGION, files.region_bus),
    }
    match member.role:
        case Role.CORE:
            config |= {
                "control_bus": bus(spec, login, Account.CONTROL, files.control_bus),
                "key_store": files.key_store,
                "secrets": {"seal_key": files.seal_key, "hpke_key": files.hpke_key},
                "unsealer_environment": dict(environment),
            }
        case Role.GATEWAY:
            config |= {"control_bus": bus(spec, login, Account.CONTROL, files.control_bus)}
        case Role.AUDITOR:
            config |= {
                "auditor": {"journal": files.journal},
                "regions": [
                    {"region": name} | bus(topology.region(name), login, Account.REGION, password)
                    for name, password in files.followed.items()
                ],
            }
        case _:
            assert_never(member.role)
    if timing == DEFAULT_TIMING or member.role is Role.AUDITOR:
        return config
    return config | {"timing": asdict(timing)}


def write_context(topology: Topology, root_public: bytes, write: Write = write_private) -> Path:
    """Write the context file of clients on this machine and return its path."""
    root = topology.root
    files = ClientFiles(
        roster=Trust(root).roster,
        operator_key=Trust(root).operator_key,
        password=lambda region, role: password_path(root, region, role, Account.REGION),
    )
    path = root / "context.toml"
    write(path, to_toml(context(topology, root_public, files)))
    return path


def context(topology: Topology, root_public: bytes, files: ClientFiles) -> dict[str, Any]:
    """The content of a client's context file."""
    return {
        "system": SYSTEM,
        "root_public": root_public.hex(),
        "roster": files.roster,
        "default_region": topology.regions[0].name,
        "operator": {"name": OPERATOR, "key": files.operator_key},
        "regions": {spec.name: _access(spec, files) for spec in topology.regions},
    }


def _access(spec: RegionSpec, files: ClientFiles) -> dict[str, Any]:
    access: dict[str, Any] = _urls(spec)
    for role in (Login.APP, Login.OPERATOR):
        access[f"{role.value}_user"] = login_name(role, Account.REGION)
        access[f"{role.value}_password_file"] = files.password(spec.name, role)
    return access


def bus(spec: RegionSpec, role: Login, account: Account, password: PurePath) -> dict[str, Any]:
    """How a role reaches an account of a region's broker; ``password`` is a file."""
    return _urls(spec) | {"user": login_name(role, account), "password_file": password}


def _urls(spec: RegionSpec) -> dict[str, Any]:
    """Where a region's broker is: one node, and the others where it is a cluster."""
    others = [node.url for node in spec.others]
    return {"url": spec.url} | ({"also": others} if others else {})


def to_toml(config: Mapping[str, Any]) -> str:
    """TOML of plain values, paths, tables and arrays of tables."""
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
    # A JSON string, number or boolean is a TOML one, too.
    return json.dumps(str(value) if isinstance(value, PurePath) else value)
