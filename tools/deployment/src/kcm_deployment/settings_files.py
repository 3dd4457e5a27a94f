"""The TOML files of instances and clients.

They are read on other machines and in other directories than those in which they are written. So
the paths in them (``InstanceFiles``, ``ClientFiles``) are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, assert_never

from kcm._internal.client_context import VERSION
from kcm_broker.roles import Role as BrokerRole
from kcm_schemas.roster import Role

from kcm_deployment.broker_files import inbox_of
from kcm_deployment.members import Member


@dataclass(frozen=True, slots=True)
class BusFiles:
    """How a client finds and enters one account of a broker: addresses, CA and credentials."""

    urls: Sequence[str]
    ca: PurePath
    credentials: PurePath


@dataclass(frozen=True, slots=True)
class InstanceFiles:
    """The paths of an instance's files. A configuration names only those of its role."""

    roster: PurePath
    identity: PurePath
    state_dir: PurePath
    ready_file: PurePath
    region_bus: BusFiles
    control_bus: BusFiles
    vault_bus: BusFiles
    seal_key: PurePath
    key_store: PurePath
    journal: PurePath
    followed: Mapping[str, BusFiles] = field(default_factory=dict)
    """By region that an Auditor follows."""


@dataclass(frozen=True, slots=True)
class RegionFiles:
    """The paths of a client's files for one region."""

    operator: BusFiles
    app_credentials: PurePath | None = None
    signers: PurePath | None = None
    """Only an operator with role admin creates applications."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """The paths of a client's files: absolute, or relative to its context file."""

    roster: PurePath
    operator: tuple[str, PurePath]
    """The operator's name and private key; ``app`` is the same of an application."""
    app: tuple[str, PurePath] | None
    regions: Mapping[str, RegionFiles]


@dataclass(frozen=True, slots=True)
class Settings:
    """What all configurations of a deployment have in common."""

    system: str
    root_public: bytes
    development: bool = False


def instance(
    settings: Settings,
    member: Member,
    files: InstanceFiles,
    environment: Mapping[str, str],
    timing: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the content of an instance's configuration.

    ``environment`` is the environment of a Core's unsealer. ``timing`` has the durations of the
    kill switch, if they are not the default ones.
    """
    role = member.broker_role
    config: dict[str, Any] = {
        "instance": member.name,
        "region": member.region,
        **({"development": True} if settings.development else {}),
        "root_public": settings.root_public.hex(),
        "roster": files.roster,
        "identity": files.identity,
        "state_dir": files.state_dir,
        **({"ready_file": files.ready_file} if member.application is None else {}),
        "region_bus": bus(files.region_bus, role, member.name),
    }
    match member.role:
        case Role.CORE:
            config |= {
                "control_bus": bus(files.control_bus, role, member.name),
                "vault_bus": bus(files.vault_bus, role, member.name),
                "key_store": files.key_store,
                "secrets": {"seal_key": files.seal_key},
                **({"unsealer_environment": dict(environment)} if environment else {}),
            }
        case Role.GATEWAY:
            config |= {"control_bus": bus(files.control_bus, role, member.name)}
        case Role.AUDITOR:
            config |= {
                "auditor": {"journal": files.journal},
                "regions": [
                    {"region": name} | bus(one, role, member.name)
                    for name, one in files.followed.items()
                ],
            }
        case _:
            assert_never(member.role)
    if timing is None or member.role is Role.AUDITOR:
        return config
    return config | {"timing": dict(timing)}


def context(settings: Settings, files: ClientFiles) -> dict[str, Any]:
    """Return the content of a client's context file. The first region is the default one."""
    return {
        "version": VERSION,
        "system": settings.system,
        "root_public": settings.root_public.hex(),
        "roster": files.roster,
        "default_region": next(iter(files.regions)),
        "operator": dict(zip(("name", "key"), files.operator, strict=True)),
        **({"app": dict(zip(("name", "key"), files.app, strict=True))} if files.app else {}),
        "regions": {
            name: _urls(one.operator.urls)
            | {
                "ca": one.operator.ca,
                **({"app_credentials": one.app_credentials} if one.app_credentials else {}),
                "operator_credentials": one.operator.credentials,
                **({"signers": one.signers} if one.signers else {}),
            }
            for name, one in files.regions.items()
        },
    }


def provisioning(
    region: str, region_bus: BusFiles, vault_bus: BusFiles, name: str, replicas: int
) -> dict[str, Any]:
    """Return the content of the configuration of ``kcm region provision``."""
    role = BrokerRole.PROVISIONER
    return {
        "region": region,
        "replicas": replicas,
        "region_bus": bus(region_bus, role, name),
        "vault_bus": bus(vault_bus, role, name),
    }


def bus(files: BusFiles, role: BrokerRole, name: str) -> dict[str, Any]:
    """Return the access of a client to an account; ``name`` is that of the instance."""
    return _urls(files.urls) | {
        "ca": files.ca,
        "credentials": files.credentials,
        "inbox": inbox_of(role, name),
    }


def _urls(urls: Sequence[str]) -> dict[str, Any]:
    """Return the addresses of a broker: one node, and the others if it is a cluster."""
    first, *others = urls
    return {"url": first} | ({"also": others} if others else {})


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
