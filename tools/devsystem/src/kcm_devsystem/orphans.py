"""Running processes of a system without a record, because their starter died before it wrote one.

A process is recognised by the end of its command line, which names a file of this directory that no
other process uses. A command that starts processes searches for such ones first, so that no
instance runs twice. A command that ends the system ends them, too.
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
"""Maximum bytes read of a command line; ours have about a hundred."""


def known(root: Path) -> State | None:
    """Return the recorded processes and the running ones without a record; ``None`` if no process.

    Raises ``DevError`` for files of another version.
    """
    recorded = state.load(root)
    running = recorded.running.names if recorded else frozenset[str]()
    for entry in find(root):
        if entry.process.name not in running:
            recorded = (recorded or State()).with_entry(entry)
    return recorded


def find(root: Path) -> list[Entry]:
    """Return every process that runs a part of the system in this directory."""
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
                # During a fork, the child has the same command line: keep only the parent.
                if process is not None and _command(pid) == argv:
                    found.append((_parent(pid), part.entry(process)))
    ours = {entry.process.pid for _, entry in found}
    return [entry for parent, entry in found if parent not in ours]


def stop(root: Path, entries: State) -> dict[Process, End]:
    """End these processes and others with their names. Raises the errors of ``State.stop``."""
    ends = entries.stop()
    # Of two processes with one name, only one has a record.
    while left := [entry for entry in find(root) if entry.name in entries.names]:
        ends |= State(tuple(left)).stop()
    return ends


def _commands() -> Iterator[tuple[int, tuple[str, ...]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (argv := _command(int(entry.name))):
            yield int(entry.name), argv


def _command(pid: int) -> tuple[str, ...]:
    """Return the command line of a running process of this user; else an empty one."""
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
    # The owner of /proc/PID is not reliable: it is root for a process that cannot be dumped.
    for line in (place / "status").read_text("utf-8", "replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return None
