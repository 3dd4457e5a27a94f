"""What the sentinel costs a region, by how many customers' keys are in use.

A running region with softkeys, the cheapest provider. Probes are counted where they are told: each
one that was allowed is a proof in the region's control stream. Processor time is that of the Cores
and of the children in which they use keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import nats
from kcm import Admin, Client, statements
from kcm_control.sentinel import PROBES_PER_S
from kcm_schemas import subjects
from nats.aio.msg import Msg

from benchmarks.kill.living import SERVICE, System
from benchmarks.kill.sample import Figure
from benchmarks.scale.filling import filling, region_account
from benchmarks.scale.processor import worked

PART: Final = "uses of customers' keys"

SETTLE_S: Final = 12.0
"""Seconds from opening to counting: an interval, so that first probes are spread."""

AT_ONCE: Final = 8
"""Tenants made at once."""

SHARED: Final = "shared"
"""The key of the tenants that have one together."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How many keys, each with a tenant, in use at each step; and how long to look."""

    steps: tuple[int, ...] = (100, 400, 1_400)
    shared: int = 400
    """Tenants on one key."""
    seconds: float = 20.0
    settle_s: float = SETTLE_S


async def measure(at: System, keys: Keys) -> list[Figure]:
    """Many tenants on one key first, then more and more keys in use."""
    region, found = at.regions[0], []
    async with (
        Admin.open(at.context) as admin,
        Client.connect(at.context, region) as client,
        filling(at, region) as fill,
        _proofs(at, region) as proofs,
    ):
        work = _Work(at, admin, client, region)
        await fill.links([SHARED])
        await work.all([(f"shared-{number:05}", SHARED) for number in range(keys.shared)])
        label = f"{keys.shared} tenants on one key"
        found += await _look(at, region, proofs, keys, label)
        made = 0
        for step in keys.steps:
            names = [f"own-{number:05}" for number in range(made, step)]
            await fill.links(names)
            await work.all([(name, name) for name in names])
            made = step
            found += await _look(at, region, proofs, keys, f"{step} keys opened")
    return found


class _Work:
    """Makes a tenant on a link and uses it once, through the Gateway."""

    def __init__(self, at: System, admin: Admin, client: Client, region: str) -> None:
        self._at: Final = at
        self._admin: Final = admin
        self._client: Final = client
        self._region: Final = region

    async def all(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Each of these tenants on its link, several at once."""
        rest = iter(pairs)

        async def worker() -> None:
            for tenant, link in rest:
                await self._use(tenant, link)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())

    async def _use(self, tenant: str, link: str) -> None:
        signer, regions = self._admin.identity, self._at.regions
        record = statements.tenant(signer, tenant, link=link, regions=regions, fence="all")
        await self._admin.put(self._region, "tenant", record)
        service = statements.service(signer, tenant, SERVICE)
        await self._admin.put(self._region, "service", service)
        done = await self._client.encrypt(tenant, SERVICE, [b""], deadline_s=30)
        done.unwrap()


class _Counted:
    """Proofs that were told."""

    def __init__(self) -> None:
        self.count = 0

    async def receive(self, message: Msg) -> None:
        """Count one."""
        self.count += subjects.control_noun(message.subject) == "proof"


@asynccontextmanager
async def _proofs(at: System, region: str) -> AsyncIterator[_Counted]:
    address, counted = region_account(at, region), _Counted()
    password = address.password_file.read_text().strip()
    client = await nats.connect(address.url, user=address.user, password=password)
    try:
        await client.subscribe(subjects.control_all(region), cb=counted.receive)
        await client.flush()
        yield counted
    finally:
        await client.close()


async def _look(at: System, region: str, proofs: _Counted, keys: Keys, label: str) -> list[Figure]:
    await asyncio.sleep(keys.settle_s)
    before, spent, started = proofs.count, worked(at, "core"), time.monotonic()
    await asyncio.sleep(keys.seconds)
    passed = time.monotonic() - started
    per_s = (proofs.count - before) / passed
    busy = 100 * (worked(at, "core") - spent) / passed
    return [
        Figure(PART, f"{label}: probes a second", per_s, "1/s", PROBES_PER_S * at.options.cores),
        Figure(PART, f"{label}: processor, Cores of {region}", busy, "%"),
    ]
