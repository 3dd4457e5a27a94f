"""A development system: backbone, regions, Cores, Gateways and one Auditor, on this machine.

    up       create missing files, start missing processes, wait until they serve
    down     end every process, components first; ``wipe`` removes the directory, too
    restart  end some processes and start them again
    status   every process with role, region, instance and pid, every broker with its address

All files are in one directory, and all processes listen on the loopback only. The directory also
stores the parts of the system and their ports (``shape``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kcm._internal.client_files import default_path
from kcm.cli.signals import undisturbed
from kcm_schemas.roster import Roster

from kcm_devsystem import (
    instances,
    mark,
    orphans,
    parts,
    processes,
    retired,
    shape,
    startup,
    state,
    topology,
)
from kcm_devsystem.errors import DevError, NoSystemError, UnknownProcessError
from kcm_devsystem.generated import Generated
from kcm_devsystem.health import health
from kcm_devsystem.options import REGIONS, Options
from kcm_devsystem.parts import Part
from kcm_devsystem.shape import Shape
from kcm_devsystem.startup import Start, Tell
from kcm_devsystem.state import Entry, Kind, State
from kcm_devsystem.topology import Topology

__all__ = ("REGIONS", "Options", "SystemState", "Tell", "default_directory", "down", "init",
           "restart", "status", "up")  # fmt: skip

LOCK_WAIT_S: Final = 10.0
"""Seconds to wait while the watcher restarts a process."""


@dataclass(frozen=True, slots=True)
class SystemState:
    """A running system: its directory, the clients' context file, and its processes."""

    directory: Path
    context: Path
    entries: tuple[Entry, ...]


def default_directory() -> Path:
    """Return the default directory of ``kcm dev``."""
    return default_path(os.environ).parent


def up(options: Options, tell: Tell = lambda _: None) -> SystemState:
    """Start a system, or the missing processes of a running one. Raises ``DevError``.

    Also raises ``DevError`` if all processes run, ``OtherShapeError`` if the directory has a system
    of another shape, and ``ImpossibleShapeError`` before any file is created. After a failure or a
    signal, the processes that this call started are ended, and no others.
    """
    options = replace(options, directory=options.directory.resolve())
    root = options.directory
    topology.check(options.regions, options.nodes)
    mark.claim(root)
    with state.exclusive(root, LOCK_WAIT_S):
        known = orphans.known(root) or State()
        running = known.running
        wanted = _agreed(options, running)
        if running.entries:
            if not _missing(root, wanted, running, tell):
                raise DevError(f"a system runs already in {root}", hint="`kcm dev down` ends it")
            state.save(root, known)
        now = running

        def record(entry: Entry) -> None:
            nonlocal now
            now = now.with_entry(entry)
            state.save(root, now)

        with _undone(root, known if running.entries else State(), running):
            context = Start(options, wanted, running.names, record, tell).all()
        return SystemState(root, context, now.entries)


@contextmanager
def _undone(root: Path, before: State, running: State) -> Iterator[None]:
    """After a failure, end the processes in the directory that did not run before."""
    try:
        yield
    except BaseException:
        with undisturbed():
            after = (orphans.known(root) or State()).running
            names = running.names
            State(tuple(e for e in after.entries if e.process.name not in names)).stop()
            state.save(root, before)
        raise


def _agreed(options: Options, running: State) -> Shape:
    """Return the shape asked for, with the stored ports. Raises ``DevError`` for another shape."""
    known = shape.load(options.directory)
    if known is None and running.entries:
        raise DevError(
            f"the system in {options.directory} was started by another version",
            hint="`kcm dev down` ends it",
        )
    return shape.agreed(options.shape, known, runs=bool(running.entries))


def _missing(root: Path, wanted: Shape, running: State, tell: Tell) -> bool:
    """Whether a process is missing."""
    missing = [part for part in parts.of(root, wanted) if part.name not in running.names]
    if any(part.kind is not Kind.INSTANCE for part in missing):
        return True
    roster = retired.highest(root)
    left = [part for part in missing if retired.why_not(roster, part.instance)]
    if left == missing:
        for part in left:
            tell(f"{part.name} is {retired.why_not(roster, part.instance)}: not started")
    return left != missing


def init(options: Options, tell: Tell = lambda _: None) -> tuple[Topology, bytes]:
    """Create identities, secrets, roster and configurations, and start nothing.

    Raises ``DevError``, also if a system runs, and ``OtherShapeError`` for one of another shape.
    """
    options = replace(options, directory=options.directory.resolve())
    root = options.directory
    topology.check(options.regions, options.nodes)
    mark.claim(root)
    with state.exclusive(root, LOCK_WAIT_S):
        if (orphans.known(root) or State()).running.entries:
            raise DevError(f"a system runs in {root}", hint="`kcm dev down` ends it")
        wanted = _agreed(options, State())
        public, write = startup.trust(options, tell), Generated(root, tell).write
        plan = topology.plan(
            root,
            options.regions,
            nodes=options.nodes,
            detour=options.detour,
            known=wanted.ports,
            users=startup.users(options),
        )
        shape.save(root, wanted.model_copy(update={"ports": plan.ports}))
        topology.write_configs(plan, write)
        startup.write_configs(plan, options, public, write)
        return plan, public


def down(directory: Path, *, wipe: bool = False, tell: Tell = lambda _: None) -> list[str]:
    """End every process of the system and return their names. No other process is ended.

    ``wipe`` removes the system's files, too, and reports the other files. Raises ``DevError``.
    """
    mark.require(directory)
    root = directory.resolve()
    with state.exclusive(root, LOCK_WAIT_S):
        running = orphans.known(root)
        ended = []
        if running is not None:
            tell("ending instances, then brokers")
            ends = orphans.stop(root, running)
            ended = [process.name for process in ends]
            state.save(root, State())
        if wipe:
            left = mark.wipe(root)
            if left:
                tell(f"not files of the system, left in {root}: {', '.join(left)}")
    return ended


def restart(directory: Path, names: Sequence[str], tell: Tell = lambda _: None) -> list[str]:
    """End these processes and start them again, with their present configurations.

    Components end before brokers, and start after them. Returns the names in the order of the
    start. Raises ``DevError``: ``UnknownProcessError`` for an unknown name, before any process is
    ended, and ``NoSystemError`` if no system runs.
    """
    mark.require(directory)
    root = directory.resolve()
    with state.exclusive(root, LOCK_WAIT_S):
        known, wanted = orphans.known(root) or State(), shape.load(root)
        if wanted is None or not known.running.entries:
            raise NoSystemError(f"no system runs in {root}")
        chosen = _named(root, wanted, names)
        ending = tuple(known.entry(p.name) for p in chosen if p.name in known.running.names)
        tell(f"ending {', '.join(part.name for part in chosen)}")
        orphans.stop(root, State(ending))
        started = []
        for part in chosen:
            tell(f"starting {part.name}")
            entry = instances.start_part(root, part, part.name)
            known = known.with_entry(entry)
            state.save(root, known)
            started.append(entry)
            if part.kind is Kind.BROKER:
                instances.wait(root, entry)
        for entry in started:
            instances.wait(root, entry)
        return [part.name for part in chosen]


def _named(root: Path, wanted: Shape, names: Sequence[str]) -> list[Part]:
    """Return the parts with these names, in the order of their start."""
    every = parts.of(root, wanted)
    unknown = [name for name in names if name not in {part.name for part in every}]
    if unknown:
        raise UnknownProcessError(unknown[0], [part.name for part in every])
    roster = retired.highest(root)
    chosen = [part for part in every if part.name in names]
    for part in chosen:
        if why := retired.why_not(roster, part.instance):
            raise DevError(
                f"{part.name} is {why}: it does not start",
                hint="leave it out; `kcm roster show` shows who is retired",
            )
    return chosen


def status(directory: Path) -> list[dict[str, Any]]:
    """Return a mapping for every process, including those that should run but do not.

    ``health`` is a word of ``health``, or ``not started``; ``left`` is the reason why an instance
    need not run. The list is empty if no system was started.
    """
    mark.require(directory)
    root = directory.resolve()
    known, wanted = orphans.known(root), shape.load(root)
    if known is None or not known.entries:
        return []
    roster = retired.highest(root)
    every = parts.of(root, wanted) if wanted else ()
    absent = [part for part in every if part.name not in known.names]
    both: tuple[Entry | Part, ...] = (*known.entries, *absent)
    return [_row(root, one, roster) for one in both]


def _row(root: Path, one: Entry | Part, roster: Roster | None) -> dict[str, Any]:
    process = one.process if isinstance(one, Entry) else None
    return {
        "name": one.name,
        "kind": one.kind.value,
        "role": one.role,
        "region": one.region,
        "instance": one.instance,
        "pid": process.pid if process else None,
        "address": one.address,
        "running": process is not None and processes.is_running(process),
        "health": health(root, one) if isinstance(one, Entry) else "not started",
        "left": retired.why_not(roster, one.instance),
        "log": str(process.log_path) if process else "",
    }
