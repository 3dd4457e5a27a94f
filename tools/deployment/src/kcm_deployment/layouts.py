"""Where the files of a deployment are: in the bundles that are made, and on their machines.

A *bundle* is the directory with the files of one machine or container. ``SYSTEMD`` is for the units
in ``deploy/systemd``, which get secrets as credentials. ``kcm_devsystem.containers`` has the layout
of ``compose.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Final

from kcm_schemas.roster import Role

from kcm_deployment.deployment import Server
from kcm_deployment.members import Member

CONFIG: Final = "config.toml"
"""The configuration of an instance or a job, in its bundle."""

SERVER_CONFIG: Final = "nats.conf"
"""The configuration of a server, in its bundle."""

CLIENT_PORT: Final = 4222
"""The port for a broker's clients."""
CLUSTER_PORT: Final = 6222
"""The port for the other servers of a cluster."""
LEAF_PORT: Final = 7422
"""The backbone's port for leaf nodes."""


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of an instance on its machine."""

    secrets: PurePath
    public: PurePath
    """The roster, and the certificate of the broker's authority."""
    state_dir: PurePath
    ready_file: PurePath
    key_store: PurePath
    journal: PurePath


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """The directories of a server on its machine, and the address that it listens on."""

    config: PurePath
    streams: PurePath
    accounts: PurePath
    host: str = "0.0.0.0"  # noqa: S104 - a server's clients are on other machines
    monitor: str = ""
    """Where it answers questions of monitoring; empty: nowhere."""
    store_bytes: int = 64 << 30
    memory_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of bundles, and the places of their files."""

    instance_bundle: Callable[[Member], str]
    server_bundle: Callable[[str, Server], str]
    """By region, or with an empty name for the backbone."""
    place: Callable[[Member], Place]
    server: ServerPlace
    provision: PurePath
    """The directory of the files of ``kcm region provision``."""
    operator_bundle: Callable[[str], str]
    push: bool = True
    """Whether there is a bundle for ``kcm broker push``."""


def _systemd(member: Member) -> Place:
    if member.application is not None:  # the application is no unit of ours: all is in one place
        here = PurePosixPath()
        return Place(here, here, here / "state", here / "ready", here, here)
    role, name = member.role.value, member.name
    state = PurePosixPath(f"/var/lib/kcm-{role}") / name
    return Place(
        secrets=PurePosixPath(f"/run/credentials/kcm-{role}@{name}.service"),
        public=PurePosixPath("/etc/kcm") / role,
        state_dir=state if member.role is not Role.AUDITOR else state / "state",
        ready_file=PurePosixPath(f"/run/kcm-{role}") / name / "ready",
        key_store=PurePosixPath("/var/lib/kcm-keys"),
        journal=state / "journal",
    )


SYSTEMD: Final = Layout(
    instance_bundle=lambda member: f"{member.region}/{member.name}",
    server_bundle=lambda region, server: f"{region or 'backbone'}/{server.name}",
    place=_systemd,
    server=ServerPlace(
        config=PurePosixPath("/etc/nats"),
        streams=PurePosixPath("/var/lib/nats"),
        accounts=PurePosixPath("/var/lib/nats/accounts"),
    ),
    provision=PurePosixPath("."),
    operator_bundle=lambda name: f"operators/{name}",
)
