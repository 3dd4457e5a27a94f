"""Looking for keys in every process of a running system."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_devsystem import system

from tests.integration.living import Living, encrypt
from tests.security import scan

CHILD_S: Final = 30.0
"""Seconds in which a child of the unsealer must appear."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Which keys a process has in its memory, by their names in the search."""

    process: str
    role: str
    names: frozenset[str]


class Leak(AssertionError):
    """A key is where it must not be, or a key that must be found is not."""


def look(living: Living, finder: scan.Search) -> list[Seen]:
    """Search all processes of a system."""
    seen = []
    for name, role, pid in processes(living.directory):
        try:
            seen.append(Seen(name, role, finder.names(pid)))
        except (OSError, AssertionError):
            if role != "unsealer" or Path(f"/proc/{pid}/maps").exists():
                raise
            # a child of the unsealer, which has ended since
    return seen


def processes(directory: Path) -> list[tuple[str, str, int]]:
    """Name, role and pid of every process: brokers, instances, unsealers, the watcher."""
    found = []
    for row in system.status(directory):
        found.append((row["name"], row["role"], row["pid"]))
        if row["role"] == "core":
            found += [
                (f"{row['name']}'s unsealer", "unsealer", pid)
                for pid in scan.descendants(row["pid"])
            ]
    # Gateways first: their keys end by themselves after some seconds.
    return sorted(found, key=lambda one: one[1] != "gateway")


async def child_of_unsealer(living: Living, finder: scan.Search) -> list[Seen]:
    """Stop a child of an unsealer while it uses a root key, and search its memory."""
    other = await living.tenant(kind="softkey")
    unsealers = [pid for _, role, pid in processes(living.directory) if role == "unsealer"]
    async with living.app() as app:
        asking = asyncio.create_task(encrypt(app, other, [b"x"]))
        until = time.monotonic() + CHILD_S
        try:
            while time.monotonic() < until:
                for child in (one for pid in unsealers for one in scan.descendants(pid)):
                    seen = _stopped(child, finder)
                    if seen is not None:
                        return [seen]
                await asyncio.sleep(0)
        finally:
            await asyncio.gather(asking, return_exceptions=True)
    raise Leak("no child of an unsealer was seen")


def _stopped(pid: int, finder: scan.Search) -> Seen | None:
    try:
        os.kill(pid, signal.SIGSTOP)
        try:
            return Seen(f"child {pid}", "child", finder.names(pid))
        finally:
            os.kill(pid, signal.SIGCONT)
    except (OSError, AssertionError):
        return None  # it has ended


def told(when: str, seen: list[Seen]) -> str:
    """Return a text of what was found."""
    rows = [when]
    for one in seen:
        counts: Mapping[str, int] = _counted(one.names)
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        rows.append(f"  {one.process:<28} {text or 'none'}")
    return "\n".join(rows)


def _counted(names: frozenset[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        kind = "/".join(name.split("/")[:2])
        counts[kind] = counts.get(kind, 0) + 1
    return counts
