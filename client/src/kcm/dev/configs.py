"""The TOML files of a development system's instances and clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kcm_schemas.roster import Role

from kcm.dev.brokers import Account, RegionSpec, login_name
from kcm.dev.brokers import Role as Login
from kcm.dev.files import write_private
from kcm.dev.identities import OPERATOR, SYSTEM, Member, Trust
from kcm.dev.topology import Topology, password_path


def ready_file(root: Path, member: Member) -> Path:
    """The file that an instance makes once it serves."""
    return root / "run" / f"{member.name}.ready"


def config_file(root: Path, member: Member) -> Path:
    """An instance's configuration."""
    return root / "config" / f"{member.name}.toml"


def write_instance(
    topology: Topology, member: Member, root_public: bytes, environment: Mapping[str, str]
) -> Path:
    """Write an instance's configuration and return its path.

    ``environment`` is what the unsealer of a Core gets.
    """
    root, trust = topology.root, Trust(topology.root)
    spec = topology.region(member.region)
    config: dict[str, Any] = {
        "instance": member.name,
        "region": member.region,
        "development": True,
        "root_public": root_public.hex(),
        "roster": trust.roster,
        "identity": trust.key(member.name),
        "state_dir": root / "state" / member.name,
        "ready_file": ready_file(root, member),
        "region_bus": _bus(root, spec, Login(member.role.value), Account.REGION),
    }
    match member.role:
        case Role.CORE:
            store = root / "keystore" / member.region
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
            config |= {
                "control_bus": _bus(root, spec, Login.CORE, Account.CONTROL),
                "key_store": store,
                "secrets": {
                    "seal_key": trust.seal_key(member.region),
                    "hpke_key": trust.hpke_key(member.region),
                },
                "unsealer_environment": dict(environment),
            }
        case Role.GATEWAY:
            config |= {"control_bus": _bus(root, spec, Login.GATEWAY, Account.CONTROL)}
        case Role.AUDITOR:
            config |= {
                "auditor": {"journal": root / "journal"},
                "regions": [
                    {"region": one.name} | _bus(root, one, Login.AUDITOR, Account.REGION)
                    for one in topology.regions
                ],
            }
    path = config_file(root, member)
    write_private(path, to_toml(config))
    return path


def write_context(topology: Topology, root_public: bytes) -> Path:
    """Write the clients' context file and return its path."""
    root = topology.root
    context = {
        "system": SYSTEM,
        "root_public": root_public.hex(),
        "roster": Trust(root).roster,
        "default_region": topology.regions[0].name,
        "operator": {"name": OPERATOR, "key": Trust(root).operator_key},
        "regions": {spec.name: _access(root, spec) for spec in topology.regions},
    }
    path = root / "context.toml"
    write_private(path, to_toml(context))
    return path


def _access(root: Path, spec: RegionSpec) -> dict[str, Any]:
    access: dict[str, Any] = {"url": spec.url}
    for role in (Login.APP, Login.OPERATOR):
        access[f"{role.value}_user"] = login_name(role, Account.REGION)
        access[f"{role.value}_password_file"] = password_path(root, spec.name, role, Account.REGION)
    return access


def _bus(root: Path, spec: RegionSpec, role: Login, account: Account) -> dict[str, Any]:
    return {
        "url": spec.url,
        "user": login_name(role, account),
        "password_file": password_path(root, spec.name, role, account),
    }


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
    return json.dumps(str(value) if isinstance(value, Path) else value)
