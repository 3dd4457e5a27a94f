"""The processes of a system with a given shape, running or not."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from kcm_deployment.members import Member
from kcm_schemas.roster import Role

from kcm_devsystem import clusters
from kcm_devsystem.brokers import LOOPBACK
from kcm_devsystem.configs import config_file
from kcm_devsystem.processes import Process
from kcm_devsystem.shape import Shape
from kcm_devsystem.state import Entry, Kind
from kcm_devsystem.topology import config_path

MODULES: Final = {
    Role.CORE: "kcm_core",
    Role.GATEWAY: "kcm_gateway",
    Role.AUDITOR: "kcm_auditor",
}
"""The module of each role's instances."""
SERVER: Final = "nats-server"
"""The program of brokers."""


@dataclass(frozen=True, slots=True)
class Part:
    """A planned process. ``command`` is the end of its command line, ``program`` what is before."""

    name: str
    kind: Kind
    role: str
    command: tuple[str, ...]
    region: str = ""
    instance: str = ""
    address: str = ""
    program: str = ""
    """The name of its file; empty if ``command`` is sufficient."""

    def is_run_by(self, argv: tuple[str, ...]) -> bool:
        """Whether a process of this command line is this part."""
        length = len(self.command)
        if argv[-length:] != self.command:
            return False
        return not self.program or PurePath(*argv[-length - 1 : -length]).name == self.program

    def entry(self, process: Process) -> Entry:
        """Return the entry of its process."""
        return Entry(process, self.kind, self.role, self.region, self.instance, self.address)


def member_argv(root: Path, member: Member) -> list[str]:
    """Return the command line of an instance."""
    config = str(config_file(root, member))
    return [sys.executable, "-m", MODULES[member.role], "--config", config]


def watcher_argv(root: Path) -> list[str]:
    """Return the command line of the watcher."""
    return [sys.executable, "-m", "kcm_devsystem.watcher", "--dir", str(root)]


def of(root: Path, shape: Shape) -> tuple[Part, ...]:
    """Return all processes in the order of their start."""
    return (*_brokers(root, shape), *_members(root, shape), *_watcher(root, shape))


def _brokers(root: Path, shape: Shape) -> list[Part]:
    def command(name: str) -> tuple[str, ...]:
        return ("--config", str(config_path(root, name)))

    def address(scheme: str, port: str) -> str:
        return f"{scheme}://{LOOPBACK}:{shape.ports[port]}" if port in shape.ports else ""

    backbone, role = "backbone", Kind.BROKER
    found = [
        Part(
            backbone, role, backbone, command(backbone),
            address=address("tls", f"{backbone}/leaf"), program=SERVER,
        )
    ]  # fmt: skip
    for region in shape.regions:
        found += [
            Part(
                name,
                role,
                "region",
                command(name),
                region,
                address=address("tls", name),
                program=SERVER,
            )
            for name in clusters.server_names(region, shape.nodes_of(region))
        ]
    return found


def _members(root: Path, shape: Shape) -> list[Part]:
    return [
        Part(
            one.name, Kind.INSTANCE, one.role.value, tuple(member_argv(root, one)[1:]),
            one.region, one.name,
        )
        for one in shape.members
    ]  # fmt: skip


def _watcher(root: Path, shape: Shape) -> list[Part]:
    name = Kind.WATCHER.value
    command = tuple(watcher_argv(root)[1:])
    return [Part(name, Kind.WATCHER, name, command)] if shape.watch else []
