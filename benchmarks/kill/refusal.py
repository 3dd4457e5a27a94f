"""From a refusal by the customer's key to darkness everywhere.

The key is a file whose state is flipped: a provider that takes effect at once, so its own delay is
none, and what asking it takes is measured apart. The probe interval is short, so that it can be
repeated; the bound that has to hold is made of the same durations.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from kcm import Admin
from kcm_core.unsealer.client import Unsealer
from kcm_devsystem.root_keys import RootKeys
from kcm_killswitch.model.timing import Timing
from kcm_runtime.clock import SystemClock
from kcm_schemas import subjects
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.bare import connected, written
from benchmarks.kill.broadcast import WAIT_S, Load, clients
from benchmarks.kill.living import (
    Helper,
    System,
    helpers,
    make_links,
    make_tenants,
    open_tenants,
    tenant_name,
)
from benchmarks.kill.sample import Figure, spread
from benchmarks.measure import percentile

PART: Final = "a refusal by the customer's key"

TIMING: Final = Timing(probe_interval_s=1.0, probe_deadline_s=2.0, l1_lease_s=6.0, settle_s=0.5)

SPARE_S: Final = 1.0
"""Beside the interval, its jitter and the probe's deadline: to tell everybody."""

BOUND_S: Final = (
    TIMING.probe_interval_s * (1 + TIMING.probe_jitter) + TIMING.probe_deadline_s + SPARE_S
)

LOAD: Final = Load(tenants=2, links=2, kills=0, pause_s=0.2, victim_pause_s=0.02)
"""At least; each refusal has a tenant and a link of its own, because flap damping would keep a link
that refuses again and again dark for longer each time."""


async def measure(at: System, times: int) -> list[Figure]:
    """Disable one key after another, while every region's clients ask all the time."""
    count = max(times, LOAD.tenants)
    load = replace(LOAD, tenants=count, links=count)
    async with Admin.open(at.context) as admin:
        states = await make_links(at, admin, count)
        await make_tenants(at, admin, count, count)
    await open_tenants(at, count, 2)
    uses = await _uses(at, max(5, times))
    async with (
        helpers(clients(at, load)) as started,
        connected(at.control(at.regions[0])) as bus,
    ):
        flips = Flips(started, bus)
        await flips.listen()
        for number in range(times):
            await flips.once(tenant_name(number), states[number])
    return [
        Figure(PART, "the provider's own delay (a file: none)", 0.0, "s"),
        *spread(PART, "one use of the key, through an unsealer", uses),
        Figure(PART, "refusal to the first receipt, median", percentile(flips.noticed, 50), "s"),
        Figure(
            PART, "refusal to the last accepted answer, median", percentile(flips.dark, 50), "s"
        ),
        Figure(
            PART,
            "refusal to the last accepted answer, maximum",
            max(flips.dark),
            "s",
            BOUND_S,
            note="interval + jitter + probe deadline + 1 s",
        ),
        *spread(PART, "first receipt to the last accepted answer", flips.spreading),
    ]


class Flips:
    """One refusal after another, and what became of it."""

    def __init__(self, clients: list[Helper], bus: Nats) -> None:
        self._clients: Final = clients
        self._bus: Final = bus
        self._clock: Final = SystemClock()
        self._first = 0.0
        self.noticed: Final[list[float]] = []
        self.dark: Final[list[float]] = []
        self.spreading: Final[list[float]] = []

    async def listen(self) -> None:
        """Note when the first receipt arrives."""

        async def receive(_: Msg) -> None:
            self._first = self._first or self._clock.elapsed()

        await self._bus.subscribe(subjects.receipts(), cb=receive)
        await written(self._bus)

    async def once(self, tenant: str, state: Path) -> None:
        """Wait until the tenant is served, disable its key, and wait until it is dark everywhere.

        ``state`` is the file with the key's state.
        """
        await self._all(do="serve", tenant=tenant)
        await asyncio.sleep(random.uniform(0, TIMING.probe_interval_s))
        self._first = 0.0
        refused = self._clock.elapsed()
        _disable(state)
        last = max(one["last"] for one in await self._all(do="dark"))
        self.noticed.append(self._first - refused)
        self.dark.append(last - refused)
        self.spreading.append(max(0.0, last - self._first))

    async def _all(self, **what: object) -> list[dict[str, float]]:
        return await asyncio.gather(*(client.ask(WAIT_S, **what) for client in self._clients))


def _disable(state: Path) -> None:
    fresh = state.with_suffix(".new")
    fresh.write_text("disabled\n")
    fresh.replace(state)


async def _uses(at: System, times: int) -> list[float]:
    """What it takes to use the key once, in the way that a Core does."""
    uri = RootKeys(at.options.directory).create("bench-use", "softkey")
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
    await unsealer.start()
    try:
        wrapped = await unsealer.wrap(uri, os.urandom(32), b"", deadline_s=5)
        took = []
        for _ in range(times):
            started = time.perf_counter()
            await unsealer.unwrap_into(
                uri, wrapped.blob, b"", wrapped.mechanism, memoryview(bytearray(32)), deadline_s=5
            )
            took.append(time.perf_counter() - started)
    finally:
        await unsealer.close()
    return took
