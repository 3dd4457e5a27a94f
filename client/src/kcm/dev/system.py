"""A development system: backbone, regions, Cores, Gateways and one Auditor, on this machine.

    up      make what is missing, start everything, wait until it serves
    down    end every process, services first; ``wipe`` removes the directory, too
    status  every process with role, region, instance and pid, every broker with its address

Everything lies in one directory and listens on the loopback only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kcm_bus.config import BusAddress
from kcm_control.timing import Timing
from kcm_schemas.roster import Role, Roster

from kcm.context import default_path
from kcm.dev import leaving, mark, processes, state, topology
from kcm.dev.brokers import Account, login_name
from kcm.dev.brokers import Role as Login
from kcm.dev.clusters import Detour, direct
from kcm.dev.configs import (
    DEFAULT_TIMING,
    ready_file,
    write_context,
    write_instance,
)
from kcm.dev.errors import DevError
from kcm.dev.identities import Member, make_trust
from kcm.dev.instances import start_again, start_member, start_watcher
from kcm.dev.processes import ReadyFile
from kcm.dev.rootkeys import RootKeys
from kcm.dev.setup import ProvisionConfig, provision
from kcm.dev.state import Entry, State
from kcm.dev.topology import Topology

REGIONS: Final = ("eu-de", "us-east")

LOCK_WAIT_S: Final = 10.0
"""Seconds to wait while the watcher starts something again."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to start, and where."""

    directory: Path
    regions: tuple[str, ...] = REGIONS
    cores: int = 2
    gateways: int = 1
    applications: int = 0
    """Applications in the first region that embed a Gateway: they get an identity and a
    configuration, and are started by somebody else."""
    timing: Timing = DEFAULT_TIMING
    """The durations of the kill switch, the same for every instance."""
    probes_per_s: float | None = None
    """Root keys that a Core uses a second at most; without it, as many as it does by itself."""
    unsealer: Mapping[str, str] = field(default_factory=dict)
    """More that the Cores' unsealers get: what a cloud's library needs."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """By region, the nodes of its broker where it is a cluster."""
    audit_bytes: int | None = None
    """Room for each region's audit stream; without it what ``kcm_bus.audit_room`` finds."""
    detour: Detour = direct
    """The way that the brokers' links take."""
    die_with_parent: bool = False
    """End everything with the process that started it (only its main thread may ask)."""
    watch: bool = False
    """Start again whatever dies, until the system is ended."""

    @property
    def members(self) -> list[Member]:
        """Every instance; the one Auditor lives in the first region."""
        return [
            *(
                Member(role, region, number)
                for region in self.regions
                for role, count in ((Role.CORE, self.cores), (Role.GATEWAY, self.gateways))
                for number in range(1, count + 1)
            ),
            Member(Role.AUDITOR, self.regions[0], 1),
        ]

    @property
    def embedded(self) -> list[Member]:
        """The Gateways inside applications."""
        first = self.gateways + 1
        return [
            Member(Role.GATEWAY, self.regions[0], number)
            for number in range(first, first + self.applications)
        ]

    @property
    def everybody(self) -> list[Member]:
        """Who is on the roster."""
        return self.members + self.embedded


@dataclass(frozen=True, slots=True)
class SystemState:
    """A system that runs: its directory, the clients' context file, and every process."""

    directory: Path
    context: Path
    entries: tuple[Entry, ...]


Tell = Callable[[str], None]
"""Gets a line for a person about what happens."""


def default_directory() -> Path:
    """Where ``kcm dev`` keeps its system unless it is told otherwise."""
    return default_path(os.environ).parent


def up(options: Options, tell: Tell = lambda _: None) -> SystemState:
    """Start a system; of one that runs, start what died. Raises ``DevError``.

    That is also raised when all of it runs already; when a system cannot be started, nothing of it
    is left behind.
    """
    root = options.directory
    mark.claim(root)
    with state.exclusive(root, LOCK_WAIT_S):
        running = state.load(root)
        if running is not None and any(status.running for status in running.status()):
            return _complete(root, running, tell)
        now = State()

        def record(entry: Entry) -> None:
            nonlocal now
            now = now.with_entry(entry)
            state.save(root, now)

        try:
            context = _start(options, record, tell)
        except BaseException:
            now.stop()
            state.save(root, State())
            raise
        if options.watch:
            record(start_watcher(root))
        return SystemState(root, context, now.entries)


def _complete(root: Path, running: State, tell: Tell) -> SystemState:
    """Start what died of a system that runs; raises ``DevError`` when nothing did."""
    roster = leaving.highest(root)
    dead = [
        one.entry
        for one in running.status()
        if not one.running and not _has_left(roster, one.entry.instance, tell)
    ]
    if not dead:
        raise DevError(f"a system runs already in {root}; end it with `kcm dev down`")
    for entry in dead:
        tell(f"starting {entry.process.name} again")
        running = running.with_entry(start_again(root, entry))
        state.save(root, running)
    return SystemState(root, root / "context.toml", running.entries)


def _has_left(roster: Roster | None, instance: str, tell: Tell) -> bool:
    """Whether an instance does not act any more; says so."""
    why = leaving.why_not(roster, instance)
    if why:
        tell(f"{instance} is {why}: not started")
    return bool(why)


def init(options: Options) -> tuple[Topology, bytes]:
    """Make identities, secrets, roster and configurations, and start nothing."""
    mark.claim(options.directory)
    public = make_trust(
        options.directory, options.everybody, list(options.regions), time.time_ns() // 1_000_000
    )
    plan = topology.plan(
        options.directory, options.regions, nodes=options.nodes, detour=options.detour
    )
    topology.write_configs(plan)
    _write(plan, options, public)
    return plan, public


def down(directory: Path, *, wipe: bool = False, tell: Tell = lambda _: None) -> list[str]:
    """End every process and return their names; nothing that we did not start is touched.

    ``wipe`` removes what the system made, too, and tells what is left. Raises ``DevError``.
    """
    mark.require(directory)
    with state.exclusive(directory, LOCK_WAIT_S):
        running = state.load(directory)
        ended = []
        if running is not None:
            tell("ending services, then brokers")
            ends = running.stop()
            ended = [process.name for process in ends]
            state.save(directory, State())
        if wipe:
            left = mark.wipe(directory)
            if left:
                tell(f"not made by the system, and left in {directory}: {', '.join(left)}")
    return ended


def status(directory: Path) -> list[dict[str, Any]]:
    """Every process, one plain mapping each; ``left`` says why an instance need not run."""
    mark.require(directory)
    known = state.load(directory)
    roster = leaving.highest(directory) if known else None
    return [
        {
            "name": one.entry.process.name,
            "kind": one.entry.kind.value,
            "role": one.entry.role,
            "region": one.entry.region,
            "instance": one.entry.instance,
            "pid": one.entry.process.pid,
            "address": one.entry.address,
            "running": one.running,
            "left": leaving.why_not(roster, one.entry.instance),
            "log": str(one.entry.process.log_path),
        }
        for one in (known.status() if known else ())
    ]


def _start(options: Options, record: Callable[[Entry], None], tell: Tell) -> Path:
    root = options.directory
    tell("making identities and the signed roster")
    public = make_trust(root, options.everybody, list(options.regions), time.time_ns() // 1_000_000)
    keys = RootKeys(root)
    keys.prepare()
    tell(f"starting a backbone and {len(options.regions)} regions: {', '.join(options.regions)}")
    plan, _ = topology.start(
        root,
        options.regions,
        die_with_parent=options.die_with_parent,
        record=record,
        nodes=options.nodes,
        detour=options.detour,
    )
    asyncio.run(_provision(plan, options.audit_bytes))
    context = _write(plan, options, public)
    roster = leaving.highest(root)
    members = [one for one in options.members if not _has_left(roster, one.name, tell)]
    tell(f"starting {len(members)} services")
    started = []
    for member in members:
        entry = start_member(root, member, die_with_parent=options.die_with_parent)
        record(entry)
        started.append((entry, member))
    for entry, member in started:
        processes.wait_ready(entry.process, ReadyFile(ready_file(root, member)))
    return context


def _write(plan: Topology, options: Options, public: bytes) -> Path:
    environment = {**RootKeys(options.directory).environment, **options.unsealer}
    for member in options.everybody:
        write_instance(plan, member, public, environment, options.timing, options.probes_per_s)
    return write_context(plan, public)


async def _provision(plan: Topology, audit_bytes: int | None) -> None:
    for spec in plan.regions:
        address = BusAddress(
            url=spec.url,
            also=tuple(node.url for node in spec.others),
            user=login_name(Login.OPERATOR, Account.REGION),
            password_file=topology.password_path(
                plan.root, spec.name, Login.OPERATOR, Account.REGION
            ),
        )
        await provision(
            ProvisionConfig(
                region=spec.name,
                region_bus=address,
                replicas=len(spec.nodes),
                audit_bytes=audit_bytes,
            )
        )
