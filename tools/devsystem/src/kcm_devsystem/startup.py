"""The files of a development system, and the start of its missing processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kcm.ops.provision import ProvisionConfig, provision
from kcm_broker.roles import Account, Role
from kcm_deployment.broker_files import SETUP
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust, root_public
from kcm_schemas.text import counted

from kcm_devsystem import instances, retired, shape, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.configs import address, write_context, write_instance
from kcm_devsystem.generated import Generated
from kcm_devsystem.identities import SYSTEM, make_trust
from kcm_devsystem.options import Options
from kcm_devsystem.root_keys import RootKeys
from kcm_devsystem.shape import Shape
from kcm_devsystem.state import Entry
from kcm_devsystem.topology import Topology, Write

Tell = Callable[[str], None]
"""Gets a line of text about the progress."""


@dataclass(frozen=True, slots=True)
class Start:
    """The start of missing processes. ``running`` has the names of running ones, which stay."""

    options: Options
    shape: Shape
    running: frozenset[str]
    record: Callable[[Entry], None]
    """Gets each process as soon as it exists."""
    tell: Tell

    @property
    def _root(self) -> Path:
        return self.options.directory

    def all(self) -> Path:
        """Start the system, wait until it serves, and return the clients' context file."""
        root, write = self._root, Generated(self._root, self.tell).write
        if self.running:
            # The running instances use the existing roster.
            public = root_public(root, SYSTEM)
        else:
            public = trust(self.options, self.tell)
            RootKeys(root).prepare()
            names = ", ".join(self.shape.regions)
            regions = counted(len(self.shape.regions), "region")
            self.tell(f"starting a backbone and {regions}: {names}")
        plan = self._brokers(write)
        asyncio.run(provision_all(plan, self.options.audit_bytes))
        context = write_configs(plan, self.options, public, write, leave=self.running)
        self._instances()
        if self.shape.watch and "watcher" not in self.running:
            self._tell_missing("watcher")
            self.record(instances.start_watcher(root))
        return context

    def _brokers(self, write: Write) -> Topology:
        def planned(plan: Topology) -> None:
            for name, port in plan.ports.items():
                before = self.shape.ports.get(name, port)
                if before != port:
                    self.tell(f"another program listens on {before}: {name} has port {port} now")
            shape.save(self._root, self.shape.model_copy(update={"ports": plan.ports}))

        def record(entry: Entry) -> None:
            self.record(entry)
            self._tell_missing(entry.process.name)

        plan, _ = topology.start(
            self._root,
            self.shape.regions,
            die_with_parent=self.options.die_with_parent,
            nodes=self.shape.nodes,
            before=topology.Before(self.shape.ports, self.running),
            users=users(self.options),
            addresses=topology.Addresses(detour=self.options.detour),
            steps=topology.Steps(planned, write, record),
        )
        return plan

    def _instances(self) -> None:
        members = to_start(self._root, self.shape.members, self.running, self.tell)
        if not self.running:
            self.tell(f"starting {counted(len(members), 'instance')}")
        started = []
        for member in members:
            entry = instances.start_member(
                self._root, member, die_with_parent=self.options.die_with_parent
            )
            self.record(entry)
            self._tell_missing(member.name)
            started.append(entry)
        for entry in started:
            instances.wait(self._root, entry)

    def _tell_missing(self, name: str) -> None:
        """Report the start of a process beside running ones."""
        if self.running:
            self.tell(f"starting {name}, which did not run")


def users(options: Options) -> Users:
    """Return who may connect to the brokers."""
    return Users(tuple(options.everybody), options.visitor)


def trust(options: Options, tell: Tell) -> bytes:
    """Create missing identities and the roster; return the root's public key."""
    now_ms, roster = time.time_ns() // 1_000_000, Trust(options.directory).roster
    before = roster.read_bytes() if roster.exists() else b""
    public = make_trust(options.directory, options.everybody, list(options.regions), now_ms)
    if roster.read_bytes() != before:
        tell("created identities and the signed roster")
    return public


def to_start(
    root: Path, members: Iterable[Member], running: frozenset[str], tell: Tell
) -> list[Member]:
    """Return the active instances that do not run; report the retired ones."""
    roster = retired.highest(root)
    found = []
    for member in members:
        if member.name in running:
            continue
        if why := retired.why_not(roster, member.name):
            tell(f"{member.name} is {why}: not started")
        else:
            found.append(member)
    return found


def write_configs(
    plan: Topology,
    options: Options,
    public: bytes,
    write: Write,
    leave: frozenset[str] = frozenset(),
) -> Path:
    """Write the configurations of all instances except those in ``leave``, and the context file."""
    environment = {**RootKeys(options.directory).environment, **options.unsealer}
    for member in options.everybody:
        if member.name not in leave:
            write_instance(
                plan, member, public, environment, options.timing, options.probes_per_s, write
            )
    return write_context(plan, public, write)


async def provision_all(plan: Topology, audit_bytes: int | None) -> None:
    """Create the streams and buckets of every region, with ``audit_bytes`` for the audit stream."""
    for spec in plan.regions:
        region_bus, vault_bus = (
            address(plan, spec.name, Role.PROVISIONER, account, SETUP)
            for account in (Account.REGION, Account.VAULT)
        )
        await provision(
            ProvisionConfig(
                region=spec.name,
                region_bus=region_bus,
                vault_bus=vault_bus,
                replicas=len(spec.nodes),
                audit_bytes=audit_bytes,
            )
        )
