"""What runs: ``state.json`` in the development system's directory.

It names every process, so that another command, or another day, can show and end them; it holds
no password. It is replaced as a whole, never edited, so a reader sees the one before or the one
after. Whoever changes the system holds the directory's lock meanwhile.
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

from kcm_devsystem import processes
from kcm_devsystem.errors import DevError
from kcm_devsystem.files import write_private
from kcm_devsystem.processes import End, Process

FILE: Final = "state.json"
"""Its name in the development system's directory."""
LOCK: Final = "lock"
"""Held, in the sense of flock(2), by the command that changes the system."""
VERSION: Final = 1
"""Of the file's format; another one is refused."""
LOCK_POLL_S: Final = 0.05
"""Seconds between two attempts to get the lock."""
_STAGES: Final = 4
BYTES_MAX: Final = 1 << 20
"""Bytes in the file: some 2,000 processes."""


class Kind(StrEnum):
    """What sort of process it is. The watcher is ended first, and services before brokers."""

    BROKER = "broker"
    SERVICE = "service"
    WATCHER = "watcher"


@dataclass(frozen=True, slots=True)
class Entry:
    """One process of the system.

    ``role`` is ``backbone`` or ``region`` for brokers, ``core``, ``gateway`` or ``auditor`` for
    services, and ``watcher``. ``region`` is empty for the backbone, ``instance`` for brokers.
    ``address`` is the URL at which a broker serves, without a password, and empty for services.
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
        """Add a process; one of the same name is replaced, for it was started again."""
        return replace(self, entries=(*self.without(entry.process.name).entries, entry))

    def without(self, name: str) -> State:
        """Forget the process of that name."""
        return replace(self, entries=tuple(e for e in self.entries if e.process.name != name))

    def entry(self, name: str) -> Entry:
        """Find a process by name. Raises ``DevError`` when there is none."""
        for entry in self.entries:
            if entry.process.name == name:
                return entry
        raise DevError(f"the development system has no process called {name}")

    def status(self) -> tuple[Status, ...]:
        """Tell for each process whether it runs."""
        return tuple(Status(entry, processes.is_running(entry.process)) for entry in self.entries)

    @property
    def running(self) -> State:
        """The processes that run."""
        return State(tuple(one.entry for one in self.status() if one.running))

    @property
    def names(self) -> frozenset[str]:
        """The names of all."""
        return frozenset(entry.process.name for entry in self.entries)

    def stop(self, *, drain: float = processes.STOP_SECONDS) -> dict[Process, End]:
        """End everything: the watcher, services, the regions' brokers, then the backbone.

        Each stage is over before the next begins. Raises as ``processes.stop`` does, having
        ended what could be ended.
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
        case Kind.SERVICE:
            return 1
        case Kind.BROKER:
            return 2 if entry.region else 3
        case _:
            assert_never(entry.kind)


def save(directory: Path, state: State) -> None:
    """Replace the directory's state file, readable by its owner alone, and make it last."""
    text = json.dumps(
        {"version": VERSION, "processes": [_to_json(entry) for entry in state.entries]}, indent=2
    )
    write_private(directory / FILE, text + "\n")


def load(directory: Path) -> State | None:
    """Read the directory's state file; None when there is none.

    Raises ``DevError`` for a file that this version did not write: what is not understood is
    not acted upon.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    try:
        return _from_bytes(raw)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DevError(
            f"{path} is not a state file of this version; without it, what runs is found again"
        ) from None


@contextmanager
def exclusive(directory: Path, within_s: float = 0.0) -> Iterator[None]:
    """Hold the directory's lock, making the directory if need be.

    Raises ``DevError`` when another command holds it for ``within_s`` seconds.
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
                    raise DevError(f"another command is at work in {directory}") from None
                time.sleep(LOCK_POLL_S)
            else:
                break
        yield
    finally:
        os.close(lock)


def _to_json(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    fields["process"]["log_path"] = str(entry.process.log_path)
    return fields


def _from_bytes(raw: bytes) -> State:
    if len(raw) > BYTES_MAX:
        raise ValueError
    document = json.loads(raw)
    if document["version"] != VERSION:
        raise ValueError
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
    # A pid of 0 or below would address groups, or everybody.
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError
    return value
