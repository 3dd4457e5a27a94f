"""The processes of a development system: ``state.json`` in its directory.

The file names every process, so that a later command can show and end them. It contains no
password. It is replaced as a whole, so a reader sees either the old or the new content. A command
that changes the system holds the directory's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, assert_never

from kcm_runtime.files.private_files import write_private

from kcm_devsystem import processes
from kcm_devsystem.errors import DevError, OtherVersionError
from kcm_devsystem.processes import End, Process

FILE: Final = "state.json"
"""The file's name in the development system's directory."""
LOCK: Final = "lock"
"""The file that a command locks with flock(2) while it changes the system."""
VERSION: Final = 2
"""The version of the file's format. A file of another version is refused."""
LOCK_POLL_S: Final = 0.05
"""Seconds between two attempts to get the lock."""
_STAGES: Final = 4
BYTES_MAX: Final = 1 << 20
"""Bytes in the file: some 2,000 processes."""


class Kind(StrEnum):
    """The kinds of process. The watcher is ended first, and instances before brokers."""

    BROKER = "broker"
    INSTANCE = "instance"
    WATCHER = "watcher"


@dataclass(frozen=True, slots=True)
class Entry:
    """One process of the system.

    ``role`` is ``backbone`` or ``region`` for brokers, ``core``, ``gateway`` or ``auditor`` for
    instances, and ``watcher``. ``region`` is empty for the backbone, ``instance`` for brokers.
    ``address`` is the URL of a broker, without a password; it is empty for instances.
    """

    process: Process
    kind: Kind
    role: str
    region: str = ""
    instance: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        """The process's name."""
        return self.process.name


@dataclass(frozen=True, slots=True)
class Status:
    """An entry, and whether its process runs now."""

    entry: Entry
    running: bool


@dataclass(frozen=True, slots=True)
class State:
    """Every process of a development system, in the order in which they were started."""

    entries: tuple[Entry, ...] = ()

    def with_entry(self, entry: Entry) -> State:
        """Add a process; it replaces an entry of the same name, which was restarted."""
        return replace(self, entries=(*self.without(entry.process.name).entries, entry))

    def without(self, name: str) -> State:
        """Remove the process of that name."""
        return replace(self, entries=tuple(e for e in self.entries if e.process.name != name))

    def entry(self, name: str) -> Entry:
        """Return a process by name. Raises ``DevError`` if there is none."""
        for entry in self.entries:
            if entry.process.name == name:
                return entry
        raise DevError(f"the development system has no process called {name}")

    def status(self) -> tuple[Status, ...]:
        """Return for each process whether it runs."""
        return tuple(Status(entry, processes.is_running(entry.process)) for entry in self.entries)

    @property
    def running(self) -> State:
        """The processes that run."""
        return State(tuple(one.entry for one in self.status() if one.running))

    @property
    def names(self) -> frozenset[str]:
        """The names of all processes."""
        return frozenset(entry.process.name for entry in self.entries)

    def stop(self, *, drain: float = processes.STOP_SECONDS) -> dict[Process, End]:
        """End all processes: the watcher, components, the regions' brokers, then the backbone.

        Each stage is over before the next one begins. Raises the errors of ``processes.stop``,
        after all stages.
        """
        ends: dict[Process, End] = {}
        failures: list[str] = []
        for stage in range(_STAGES):
            members = [e.process for e in self.entries if _stage(e) == stage]
            try:
                ends |= processes.stop(members, drain=drain)
            except DevError as error:
                failures.append(str(error))
        if failures:
            raise DevError("; ".join(failures))
        return ends


def _stage(entry: Entry) -> int:
    match entry.kind:
        case Kind.WATCHER:
            return 0
        case Kind.INSTANCE:
            return 1
        case Kind.BROKER:
            return 2 if entry.region else 3
        case _:
            assert_never(entry.kind)


def save(directory: Path, state: State) -> None:
    """Replace the directory's state file: mode 0600, and flushed to the disk."""
    text = json.dumps(
        {"version": VERSION, "processes": [_to_json(entry) for entry in state.entries]}, indent=2
    )
    write_private(directory / FILE, text + "\n")


def load(directory: Path) -> State | None:
    """Read the directory's state file; ``None`` if there is none.

    Raises ``OtherVersionError`` for a file of another version, and ``DevError`` for any other
    file that is not valid. No process of such a file is signalled.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    try:
        return _from_bytes(raw, path)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DevError(
            f"{path} is not a valid state file",
            hint="remove it: without it, running processes are found again",
        ) from None


@contextmanager
def exclusive(directory: Path, within_s: float = 0.0) -> Iterator[None]:
    """Hold the directory's lock; create the directory if it is missing.

    Raises ``DevError`` if another command still holds the lock after ``within_s`` seconds.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        until = time.monotonic() + within_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise DevError(
                        f"another command changes the system in {directory}",
                        hint="give the same command again when that one has ended",
                    ) from None
                time.sleep(LOCK_POLL_S)
            else:
                break
        yield
    finally:
        os.close(lock)


def _to_json(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    fields["process"]["log_path"] = str(entry.process.log_path)
    del fields["process"]["log_start"]
    return fields


def _from_bytes(raw: bytes, path: Path) -> State:
    if len(raw) > BYTES_MAX:
        raise ValueError
    document = json.loads(raw)
    if isinstance(document, dict) and "version" not in document:
        raise OtherVersionError(path, None, VERSION)
    if (found := _positive(document["version"])) != VERSION:
        raise OtherVersionError(path, found, VERSION)
    return State(tuple(_from_json(item) for item in document["processes"]))


def _from_json(item: dict[str, Any]) -> Entry:
    process = item["process"]
    return Entry(
        process=Process(
            name=_str(process["name"]),
            pid=_positive(process["pid"]),
            start_time=_positive(process["start_time"]),
            boot_id=_str(process["boot_id"]),
            log_path=Path(_str(process["log_path"])),
        ),
        kind=Kind(item["kind"]),
        role=_str(item["role"]),
        region=_str(item["region"]),
        instance=_str(item["instance"]),
        address=_str(item["address"]),
    )


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _positive(value: object) -> int:
    # A signal to a pid of 0 or below would reach groups, or all processes.
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError
    return value
