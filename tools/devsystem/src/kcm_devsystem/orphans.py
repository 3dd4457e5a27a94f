"""Processes of a system that run although nothing says so: their starter died before it could.

A process is known by the end of its command line, which names a file of this directory that no
other process is started with. Whoever starts something looks here first, so that no instance runs
twice; whoever ends everything ends these, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm_devsystem import parts, processes, shape, state
from kcm_devsystem.processes import End, Process
from kcm_devsystem.state import Entry, State

COMMAND_BYTES_MAX: Final = 1 << 16
"""Bytes read of a command line: ours have some hundred, and the last arguments count."""


def known(root: Path) -> State | None:
    """What is recorded, and what runs without; None when nothing is and nothing does.

    Raises ``DevError`` for files that this version did not write.
    """
    recorded = state.load(root)
    running = recorded.running.names if recorded else frozenset[str]()
    for entry in find(root):
        if entry.process.name not in running:
            recorded = (recorded or State()).with_entry(entry)
    return recorded


def find(root: Path) -> list[Entry]:
    """Every process that runs a part of the system in this directory, recorded or not."""
    wanted = shape.load(root)
    if wanted is None:
        return []
    known_parts = parts.of(root.resolve(), wanted)
    found = []
    for pid, argv in _commands():
        for part in known_parts:
            if part.is_run_by(argv):
                log = root / "log" / f"{part.name}.log"
                process = processes.identify(part.name, pid, log)
                # Who forks has the same command line for a moment; the first of them is meant.
                if process is not None and _command(pid) == argv:
                    found.append((_parent(pid), part.entry(process)))
    ours = {entry.process.pid for _, entry in found}
    return [entry for parent, entry in found if parent not in ours]


def stop(root: Path, entries: State) -> dict[Process, End]:
    """End these, and whatever else runs under their names. Raises as ``State.stop`` does."""
    ends = entries.stop()
    # Of two of one name only one could be recorded.
    while left := [entry for entry in find(root) if entry.name in entries.names]:
        ends |= State(tuple(left)).stop()
    return ends


def _commands() -> Iterator[tuple[int, tuple[str, ...]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (argv := _command(int(entry.name))):
            yield int(entry.name), argv


def _command(pid: int) -> tuple[str, ...]:
    """The command line of a process of this user; empty for others, and when it has ended."""
    place = Path("/proc") / str(pid)
    with suppress(OSError):
        if _field(place, "Uid:") == os.getuid():
            with (place / "cmdline").open("rb") as file:
                return tuple(map(os.fsdecode, file.read(COMMAND_BYTES_MAX).split(b"\0")[:-1]))
    return ()


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        return _field(Path("/proc") / str(pid), "PPid:")
    return None


def _field(place: Path, name: str) -> int | None:
    # The directory's owner does not tell: it is root for a process that cannot be dumped.
    for line in (place / "status").read_text("utf-8", "replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return None
