"""Processor time of a running system's processes, with the children that they have and have had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kcm_devsystem import system

from benchmarks.kill.living import System

_TICKS_S: Final = os.sysconf("SC_CLK_TCK")


def worked(at: System, *roles: str) -> float:
    """Seconds of processor of everybody with one of these roles (none: of everybody).

    Roles are those of ``kcm dev status``: ``region`` is a region's broker.
    """
    entries = system.status(at.options.directory)
    family = {entry["pid"] for entry in entries if not roles or entry["role"] in roles}
    parents = _parents()
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sum(_ticks(pid)) for pid in family) / _TICKS_S


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        found[int(path.parent.name)] = int(fields[1])
    return found


def _ticks(pid: int) -> list[int]:
    """Of a process, and of its children that ended, in clock ticks."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [int(one) for one in fields[11:15]]
