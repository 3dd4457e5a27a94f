"""Single requests of one application, in quiet and beside the flood of another one, turn by turn.

Both applications have a tenant of their own, and one Gateway and one Core serve them. The flood is
in a process of its own. The machine is shared with it: the broker, the flood and both components
compete for the processors, which no queue inside a component can change.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm import Admin, Busy, Client, ClientContext
from kcm_devsystem.applications import allow
from kcm_runtime.files.identity_file import create_identity

from benchmarks.kill.living import (
    SERVICE,
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

FLOODS: Final = ("encrypts", "decrypts", "large", "singles", "unread", "unknown", "hanging")
"""Batches of 256 records of 1 KiB, batches of records of 64 KiB, 300 single requests at once,
answers that are never read, tenants that do not exist, and a root key that does not answer."""

PART: Final = "one application beside the flood of another one"
TARGET: Final = 3.0
"""Times the quiet median and 99th percentile, at most."""

RISING_S: Final = 0.5
"""Seconds of flood before the first sample."""

PAUSE_S: Final = 0.005
"""Seconds between two requests of the quiet application."""

WAIT_S: Final = 60.0
SIZE: Final = 256
QUIET: Final = tenant_name(0)
FLOODING: Final = tenant_name(1)
HANGING: Final = tenant_name(2)


@dataclass(frozen=True, slots=True)
class Extent:
    """Rounds of a flood, and requests of the quiet application in each half of a round."""

    rounds: int
    calls: int


async def measure(at: System, floods: Sequence[str], extent: Extent) -> list[Figure]:
    """Make both applications, and compare under one flood after the other."""
    async with Admin.open(at.context) as admin:
        states = await make_links(at, admin, 3)
        await make_tenants(at, admin, 3, 3)
    await open_tenants(at, 2, 1)
    other = await _other_context(at)
    _hang(states[2])
    figures = []
    async with Client.connect(at.context, at.regions[0]) as client, _flooder(other) as flooder:
        for name in floods:
            figures += await _beside(Calls(client), flooder, name, extent)
    return figures


async def _beside(calls: Calls, flooder: Helper, name: str, extent: Extent) -> list[Figure]:
    quiet: list[float] = []
    flood: list[float] = []
    await calls.take(extent.calls)
    for _ in range(extent.rounds):
        quiet += await calls.take(extent.calls)
        calls.refused = 0
        await flooder.ask(WAIT_S, do=name)
        await asyncio.sleep(RISING_S)
        flood += await calls.take(extent.calls)
        sent = await flooder.ask(WAIT_S, do="stop")
        await asyncio.sleep(RISING_S)
    ratio = percentile(flood, 99) / percentile(quiet, 99)
    middle = percentile(flood, 50) / percentile(quiet, 50)
    return [
        *spread(PART, f"{name}, quiet", quiet),
        *spread(PART, f"{name}, beside the flood", flood),
        Figure(
            PART, f"{name}, refusals of the quiet application, the last round", calls.refused, ""
        ),
        Figure(PART, f"{name}, answers to the flood, the last round", sent["rate"], "1/s"),
        Figure(PART, f"{name}, p50 beside the flood over p50 in quiet", middle, "times", TARGET),
        Figure(PART, f"{name}, p99 beside the flood over p99 in quiet", ratio, "times", TARGET),
    ]


@dataclass(slots=True)
class Calls:
    """The quiet application: one request after the other, again where it is refused."""

    client: Client
    refused: int = 0

    async def take(self, count: int) -> list[float]:
        """Return the seconds of so many encryptions and decryptions of one record."""
        took = []
        payload = os.urandom(SIZE)
        for _ in range(count):
            started = time.perf_counter()
            record = await self._answered(self.client.encrypt_one, payload)
            middle = time.perf_counter()
            await self._answered(self.client.decrypt_one, record)
            took += [middle - started, time.perf_counter() - middle]
            await asyncio.sleep(PAUSE_S)
        return took

    async def _answered(self, call: Callable[..., Awaitable[bytes]], what: bytes) -> bytes:
        while True:
            try:
                return await call(QUIET, SERVICE, what, deadline_s=30)
            except Busy:
                self.refused += 1
                await asyncio.sleep(PAUSE_S)


async def _other_context(at: System) -> Path:
    """Make a second application, and a context file with its key."""
    directory, name = at.options.directory, "flooding"
    key = at.context_file.parent / f"{name}.key"
    identity = create_identity(name, str(key), at.context.system)
    await allow(at.context, directory, name, identity.public)
    text = at.context_file.read_text()
    text = re.sub(r"\[app\]\n(?:\w+ = .*\n?)+", "", text)
    path = at.context_file.with_name(f"{name}.toml")
    path.write_text(f'{text}\n[app]\nname = "{name}"\nkey = "{key.name}"\n')
    _ = ClientContext.load(path)
    return path


def _hang(state: Path) -> None:
    """Let every call to a softkey wait: its state is a pipe without a writer."""
    state.unlink()
    os.mkfifo(state)


@asynccontextmanager
async def _flooder(context: Path) -> AsyncIterator[Helper]:
    settings = {
        "context": str(context),
        "region": "eu-de",
        "tenant": FLOODING,
        "hanging": HANGING,
    }
    async with helpers([("benchmarks.fair.flooder", settings)]) as (flooder,):
        yield flooder
