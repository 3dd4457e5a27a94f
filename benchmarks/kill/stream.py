"""What the control stream costs: a hundred instances, ten thousand tenants, one broker.

The broker writes to disk before it acknowledges, as in production. Everybody's records come from
one other process (``instances``); the follower is an incarnation's own, in this process, which does
nothing else, so its CPU time is the follower's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm.cli.signals import undisturbed
from kcm_broker.roles import Account
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem import processes, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.configs import visitor
from kcm_devsystem.identities import SYSTEM, make_trust
from kcm_devsystem.topology import Topology
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.clock import SystemClock
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import provision_region
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.store import Rosters
from kcm_schemas import limits, subjects
from kcm_schemas.roster import Role
from kcm_trust.verify import Verifier, verify_roster

from benchmarks.kill.living import REGIONS, Helper, helpers
from benchmarks.kill.purge import emit_nothing
from benchmarks.kill.sample import Figure

PART: Final = "the control stream"

HOME: Final = REGIONS[0]
WAIT_S: Final = 300.0
"""Seconds that filling may take."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are, and for how long they are watched."""

    cores: int = 40
    gateways: int = 60
    keys: int = 10_000
    """Customers' keys in use: at most one for each tenant."""
    few: int = 100
    """The same, where many tenants share one."""
    seconds: float = 20.0


@contextmanager
def broker(size: Size) -> Iterator[tuple[Topology, Verifier]]:
    """One region's broker, with everybody on the roster; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    entries: list[processes.Process] = []
    try:
        members = [
            *(Member(Role.CORE, HOME, n + 1) for n in range(size.cores + 1)),
            *(Member(Role.GATEWAY, HOME, n + 1) for n in range(size.gateways + 1)),
        ]
        public = make_trust(directory, members, list(REGIONS), time.time_ns() // 1_000_000)
        verifier = Verifier(verify_roster(Trust(directory).roster.read_bytes(), public, 0))
        plan, _ = topology.start(
            directory,
            [HOME],
            die_with_parent=True,
            users=Users(visitor=True),
            steps=topology.Steps(record=lambda entry: entries.append(entry.process)),
        )
        yield plan, verifier
    finally:
        with undisturbed():
            processes.stop(entries[::-1])
        shutil.rmtree(directory, ignore_errors=True)


async def measure(plan: Topology, verifier: Verifier, size: Size) -> list[Figure]:
    """Fill the stream, replay it, and follow it live."""
    connection = Connection(visitor(plan, HOME), "bench")
    await connection.start()
    try:
        await provision_region(connection, HOME, vault_bus=connection)
        async with helpers([("benchmarks.kill.instances", _settings(plan, size))]) as started:
            (instances,) = started
            filled = await instances.ask(WAIT_S, do="fill")
            info = await connection.jetstream().stream_info(subjects.CONTROL_STREAM)
            disk = _on_disk(plan.root / "brokers" / HOME)
            figures = [
                *_arithmetic(size),
                Figure(
                    PART, "writes the broker sustains", filled["writes"] / filled["seconds"], "1/s"
                ),
                Figure(PART, "messages stored", info.state.messages, ""),
                Figure(PART, "bytes stored", info.state.bytes / 2**20, "MiB"),
                Figure(PART, "bytes on disk", disk / 2**20, "MiB"),
            ]
            for role in (Role.CORE, Role.GATEWAY):
                figures += await _follow(plan, verifier, role, instances, size)
    finally:
        await connection.close()
    return figures


async def _follow(
    plan: Topology, verifier: Verifier, role: Role, instances: Helper, size: Size
) -> list[Figure]:
    """An incarnation of a role: catching up from nothing, and then following everybody."""
    number = (size.cores if role is Role.CORE else size.gateways) + 1
    me = _member(plan, verifier, Member(role, HOME, number))
    region, control = (
        Connection(visitor(plan, HOME, account), "bench")
        for account in (Account.REGION, Account.CONTROL)
    )
    await region.start()
    await control.start()
    switch = _switch(me, region, control)
    if role is Role.CORE:
        switch.listen(lambda _: None, lambda _: None)
    figures = []
    try:
        started, worked = time.monotonic(), time.process_time()
        await switch.start()
        figures += [
            Figure(
                PART, f"{role.value}: catching up from nothing", time.monotonic() - started, "s"
            ),
            Figure(PART, f"{role.value}: CPU time of that", time.process_time() - worked, "s"),
        ]
        for keys in (size.keys, size.few):
            figures += await _live(role, instances, keys, size.seconds)
    finally:
        await switch.close()
        await control.close()
        await region.close()
    return figures


async def _live(role: Role, instances: Helper, keys: int, seconds: float) -> list[Figure]:
    worked = time.process_time()
    done = await instances.ask(WAIT_S, do="live", seconds=seconds, keys=keys)
    worked = time.process_time() - worked
    label = f"{keys} keys, live"
    figures = [
        Figure(
            PART, f"{role.value}: CPU of following, {label}", 100 * worked / done["seconds"], "%"
        )
    ]
    if role is Role.CORE:
        figures += [
            Figure(PART, f"writes, {label}", done["writes"] / done["seconds"], "1/s"),
            Figure(
                PART, f"bytes written, {label}", done["bytes"] / done["seconds"] / 1024, "KiB/s"
            ),
        ]
    return figures


def _arithmetic(size: Size) -> list[Figure]:
    """Writes a second by the durations that instances keep."""
    return [
        Figure(PART, f"writes by arithmetic, {keys} keys", writes(size, keys, Timing()), "1/s")
        for keys in (size.keys, size.few)
    ]


def writes(size: Size, keys: int, timing: Timing) -> float:
    """Leases of all; a peer lease and two leases for each other region; an attestation a probe.

    A round's wait is drawn from the last quarter of its interval, a probe's from its jitter.
    """
    leases = (size.cores + size.gateways) / timing.renew_every_s
    rounds = (len(REGIONS) - 1) / (timing.pull_every_s * (1 - 1 / 8))
    probes = keys / (timing.probe_interval_s * (1 - timing.probe_jitter / 2))
    return leases + 3 * rounds + probes


def _switch(me: InstanceContext, region: Connection, control: Connection) -> KillSwitch:
    clock = SystemClock()
    return KillSwitch(
        Host(me, clock, SystemKeyRandomness(), emit_nothing),
        ReplicaState.empty(HOME, Timing()),
        stream=ControlLog(region, HOME, clock),
        hold_store=NullHoldStore(),
        control_bus=control,
        purge=lambda _: 0,
    )


def _member(plan: Topology, verifier: Verifier, member: Member) -> InstanceContext:
    identity = load_identity(member.name, str(Trust(plan.root).key(member.name)), SYSTEM)
    incarnation = os.urandom(limits.ID_SIZE)
    return InstanceContext(identity, verifier.instance(member.name), Rosters(verifier), incarnation)


def _settings(plan: Topology, size: Size) -> dict[str, object]:
    return {
        "root": str(plan.root),
        "region": HOME,
        "others": list(REGIONS[1:]),
        "cores": size.cores,
        "gateways": size.gateways,
        "keys": size.keys,
        "address": visitor(plan, HOME).model_dump(mode="json"),
    }


def _on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
