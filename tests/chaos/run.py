"""One run: start, break, heal, open every record, judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kcm import Admin, ClientContext
from kcm_devsystem import system
from kcm_devsystem.applications import allow_everything
from kcm_killswitch.model.timing import Timing

from tests.chaos import schedule
from tests.chaos.faults import Faults
from tests.chaos.healing import heal, open_everything, restart
from tests.chaos.history import History, TenantSpec
from tests.chaos.links import Links
from tests.chaos.operators import Operators
from tests.chaos.packets import Packets
from tests.chaos.plant import Plant
from tests.chaos.repair import Repair, sign
from tests.chaos.report import report
from tests.chaos.traffic import CLOCK, Stream

REGIONS = ("eu-de", "us-east", "ap-south")
CLUSTER = {"eu-de": 3}

TIMING = Timing(
    control_lease_s=6.0,
    renew_every_s=1.5,
    partition_grace_s=10.0,
    hyok_grace_s=10.0,
    pull_every_s=2.0,
    l1_lease_s=12.0,
    probe_interval_s=3.0,
    settle_s=6.0,
)
"""Shorter than in production, so that a run of minutes sees every lease end many times."""

TENANTS = (
    TenantSpec("alpha", "key-ab", "all", "byok", REGIONS),
    TenantSpec("beta", "key-ab", "majority", "byok", REGIONS),
    TenantSpec("gamma", "key-g", "local", "byok", REGIONS),
    TenantSpec("delta", "key-d", "all", "hyok", REGIONS),
    TenantSpec("spared", "key-s", "all", "byok", REGIONS, spared=True),
)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run, for how long the faults last, and what everything follows from."""

    seconds: float
    seed: int
    keep: Path | None = None
    """Where the processes' logs, and what the judge was given, are kept."""


def run(wanted: Wanted, tell: Tell) -> dict[str, Any]:
    """Run once and return what came of it. Needs the main thread; leaves nothing running."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-chaos-"))
    packets = Packets.inside()
    links = Links(packets)
    options = system.Options(
        visitor=True,
        directory=directory,
        regions=REGIONS,
        timing=TIMING,
        nodes=CLUSTER,
        detour=links.detour,
        die_with_parent=True,
    )
    plant = Plant(options, links)
    told = _with_time(tell)
    try:
        told("starting three regions, one of them on a cluster of three brokers")
        told(f"cut links {'lose packets' if packets else 'end at proxies'}")
        context = ClientContext.load(plant.up())
        asyncio.run(allow_everything(context, plant.root, plain=False))
        result = asyncio.run(_run(wanted, plant, context, told))
    finally:
        try:
            plant.down()
        finally:
            links.close()
            shutil.rmtree(directory, ignore_errors=True)
    result["left_running"] = len(plant.left_over())
    result["packets_lost"] = packets is not None
    return result


async def _run(wanted: Wanted, plant: Plant, context: ClientContext, tell: Tell) -> dict[str, Any]:
    history = History(TIMING, TENANTS, REGIONS)
    async with Admin.open(context) as admin:
        await _make_tenants(admin, plant)
        streams = [
            Stream(context, region, tenant.name, history, wanted.seed)
            for tenant in TENANTS
            for region in tenant.regions
        ]
        operators = Operators(admin, context, history, tell)
        repair = Repair(plant, context, admin, history, tell)
        journal = plant.journal
        faults = Faults(plant, operators, history, repair, journal)
        plan = schedule.plan(wanted.seed, wanted.seconds, _layout(plant))
        stop = asyncio.Event()
        async with _background(
            *(stream.run(stop) for stream in streams), plant.keep_up(), operators.look()
        ):
            await _break(plan, faults, tell)
            tell("everything is healed now")
            await heal(plant, operators, repair, history, streams, journal, tell)
            stop.set()
        tell("restarting everything, so that only disks remember")
        async with _background(plant.keep_up()):
            await restart(plant, operators, repair, history, journal, tell)
        tell("opening every record that was ever made")
        await open_everything(context, history, streams)
        history.journal_wrong += await asyncio.to_thread(journal.wrong, history.audit_replaced)
    if wanted.keep is not None:
        shutil.copytree(plant.root / "log", wanted.keep, dirs_exist_ok=True)
        (wanted.keep / "history.json").write_text(json.dumps(asdict(history)))
    return report(wanted.seed, wanted.seconds, history, faults, streams, plant, journal)


async def _break(plan: schedule.Plan, faults: Faults, tell: Tell) -> None:
    began = CLOCK.elapsed()

    async def one(fault: schedule.Fault) -> None:
        await asyncio.sleep(max(0.0, began + fault.at - CLOCK.elapsed()))
        tell(f"{fault.kind} {fault.target} for {fault.seconds:.1f} s {fault.how}")
        await faults.run(fault)

    async with asyncio.TaskGroup() as group:
        for fault in plan.faults:
            group.create_task(one(fault))


async def _make_tenants(admin: Admin, plant: Plant) -> None:
    for tenant in TENANTS:
        for region in tenant.regions:
            await sign(admin, plant, region, tenant)


def _layout(plant: Plant) -> schedule.Layout:
    servers = plant.of_role("region")
    return schedule.Layout(
        cores=plant.of_role("core"),
        gateways=plant.of_role("gateway"),
        servers=servers,
        nodes=tuple(name for name in servers if plant.region_of(name) in CLUSTER),
        regions=REGIONS,
        tenants=tuple(tenant.name for tenant in TENANTS if not tenant.spared),
        links=tuple(sorted({tenant.link for tenant in TENANTS if not tenant.spared})),
    )


@contextlib.asynccontextmanager
async def _background(*work):
    """Run these until the end of the block; a failure of one of them ends the block."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def _with_time(tell: Tell) -> Tell:
    began = time.monotonic()
    return lambda text: tell(f"{time.monotonic() - began:7.1f}  {text}")
