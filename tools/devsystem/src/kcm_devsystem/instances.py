"""The start of single processes with their present configurations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kcm_deployment.members import Member
from kcm_schemas.roster import Role

from kcm_devsystem import orphans, parts, processes, topology
from kcm_devsystem.configs import ready_file
from kcm_devsystem.parts import Part
from kcm_devsystem.processes import ReadyFile
from kcm_devsystem.state import Entry, Kind

ENVIRONMENT: Final = {"PATH": os.defpath, "LANG": "C.UTF-8"}
"""The environment of every process. Nothing of the caller's environment is inherited."""

_KEY_HOLDERS: Final = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=85:glibc.malloc.tcache_count=0",
    "LD_BIND_NOW": "1",
}
"""More variables for processes that hold keys. Freed memory is overwritten. Symbols are bound at
the start, because lazy binding saves registers, which may contain key bytes, on the stack."""


def start_member(root: Path, member: Member, *, die_with_parent: bool) -> Entry:
    """Start one instance with its present configuration, without waiting for it."""
    environment = dict(ENVIRONMENT)
    if member.role is not Role.AUDITOR:
        environment |= _KEY_HOLDERS
    process = processes.spawn(
        member.name,
        parts.member_argv(root, member),
        root / "log" / f"{member.name}.log",
        environment,
        die_with_parent=die_with_parent,
        ready_file=ready_file(root, member),
    )
    return Entry(process, Kind.INSTANCE, member.role.value, member.region, member.name)


def start_watcher(root: Path) -> Entry:
    """Start the watcher, without waiting for it."""
    name = Kind.WATCHER.value
    process = processes.spawn(
        name,
        parts.watcher_argv(root),
        root / "log" / f"{name}.log",
        ENVIRONMENT,
        die_with_parent=False,
    )
    return Entry(process, Kind.WATCHER, name)


def start_again(root: Path, entry: Entry) -> Entry:
    """Restart a process of the system, without waiting for it. Raises ``DevError``.

    A running process without a record is found, and not started twice.
    """
    for found in orphans.find(root):
        if found.process.name == entry.process.name:
            return found
    return start_part(root, entry, entry.process.name)


def start_part(root: Path, part: Part | Entry, name: str) -> Entry:
    """Start a process of the system, without waiting for it. Raises ``DevError``."""
    match part.kind:
        case Kind.BROKER:
            process = topology.spawn_broker(root, name, die_with_parent=False)
            return Entry(process, part.kind, part.role, part.region, address=part.address)
        case Kind.INSTANCE:
            number = int(part.instance.rpartition("-")[2])
            member = Member(Role(part.role), part.region, number)
            return start_member(root, member, die_with_parent=False)
        case Kind.WATCHER:
            return start_watcher(root)


def ready(root: Path, entry: Entry) -> ReadyFile | None:
    """Return the file that a process creates once it serves; ``None`` for the watcher."""
    match entry.kind:
        case Kind.BROKER:
            return ReadyFile(topology.ports_file(root, entry.process))
        case Kind.INSTANCE:
            return ReadyFile(root / "run" / f"{entry.instance}.ready")
        case Kind.WATCHER:
            return None


def wait(root: Path, entry: Entry) -> None:
    """Wait until a process serves. Raises the errors of ``processes.wait_ready``."""
    condition = ready(root, entry)
    if condition is not None:
        processes.wait_ready(entry.process, condition)
