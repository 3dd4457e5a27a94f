"""The TOML files of instances; those of clients are in ``kcm._internal.client_files``.

They are read on other machines and in other directories than those in which they are written. So
the paths in them (``InstanceFiles``) are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, assert_never

from kcm._internal.client_files import addresses
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
    return addresses(files.urls) | {
        "ca": files.ca,
        "credentials": files.credentials,
        "inbox": inbox_of(role, name),
    }
