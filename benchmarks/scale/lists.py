"""Lists, making and opening in a running region, while the number of its tenants grows.

Between two sizes the region is filled with tenants that nobody asks for. At each size the same
things are done, so a ratio to the smallest size says what the others cost whoever is asked for. A
ratio is of processor time, of everybody in the region: the wall clock has others' turns in it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from kcm import Admin, Client
from kcm._internal import statements

from benchmarks.kill.living import SERVICE, System, make_links
from benchmarks.kill.sample import Figure
from benchmarks.measure import percentile
from benchmarks.scale.filling import Filling, filling
from benchmarks.scale.processor import worked

PART: Final = "lists, making and opening"

LIST_S: Final = 1.0
"""Seconds in which a page is answered, at any size."""

FLAT: Final = 1.5
"""Times as long as in the smallest region that making and opening may take: turns of one size
differ by as much."""

MANY: Final = "many-services"
"""The tenant that has services."""

LOOK_S: Final = 60.0
"""Seconds for the Cores to hear what was filled in."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    tenants: tuple[int, ...] = (100, 1_000, 10_000)
    services: int = 1_000
    made: int = 40
    """Tenants and services made and opened at each size."""


async def measure(at: System, size: Size) -> list[Figure]:
    """Everything at every size."""
    region = at.regions[0]
    found: list[Figure] = []
    async with (
        Admin.open(at.context) as admin,
        Client.connect(at.context, region) as client,
        filling(at, region) as fill,
    ):
        await make_links(at, admin, 1)
        work = _Work(at, admin, client, region)
        await work.make_tenant(MANY)
        stages: list[_Stage] = []
        filled = 0
        for tenants in size.tenants:
            await fill.tenants(range(filled, tenants), "link-0")
            filled = tenants
            await work.heard(tenants)
            stages.append(await work.stage(tenants, size.made))
        for stage in stages:
            found += stage.figures(stages[0])
        found += await _services(work, fill, size)
    return found


@dataclass(slots=True)
class _Spent:
    """What some operations of one kind took: each by the wall clock, and all of processor."""

    at: System
    took: list[float] = field(default_factory=list)
    processor: float = 0.0

    async def on(self, works: Sequence[Callable[[], Awaitable[object]]]) -> _Spent:
        """Do one after the other."""
        before = worked(self.at)
        self.took = [await timed(work) for work in works]
        self.processor = (worked(self.at) - before) / len(works)
        return self

    def figures(self, label: str) -> list[Figure]:
        """Both, for one operation."""
        return [
            Figure(PART, f"{label}, median", 1e3 * percentile(self.took, 50), "ms"),
            Figure(PART, f"{label}, processor", 1e3 * self.processor, "ms"),
        ]

    def beside(self, first: _Spent, label: str) -> Figure:
        """How many times the processor time of another one."""
        # A tick of the clock, where so few were done that nothing was counted.
        return Figure(PART, label, self.processor / max(first.processor, 1e-4), "times", FLAT)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What was measured with so many tenants; seconds."""

    tenants: int
    first: float
    everything: float
    listing: float
    """Processor time for the whole list, of the Cores and of this process."""
    making: _Spent
    opening: _Spent

    def figures(self, smallest: _Stage) -> list[Figure]:
        label = f"{self.tenants} tenants"
        figures = [
            Figure(PART, f"{label}: first page of the list", 1e3 * self.first, "ms", 1e3 * LIST_S),
            Figure(PART, f"{label}: the whole list", 1e3 * self.everything, "ms"),
            Figure(PART, f"{label}: the whole list, processor", 1e3 * self.listing, "ms"),
            *self.making.figures(f"{label}: making one"),
            *self.opening.figures(f"{label}: opening one"),
        ]
        if self is not smallest:
            than = f"processor, over {smallest.tenants} tenants"
            figures += [
                self.making.beside(smallest.making, f"{label}: making one, {than}"),
                self.opening.beside(smallest.opening, f"{label}: opening one, {than}"),
            ]
        return figures


class _Work:
    """An operator and an application of one region."""

    def __init__(self, at: System, admin: Admin, client: Client, region: str) -> None:
        self.at: Final = at
        self._client: Final = client
        self._numbers: Final[Iterator[int]] = itertools.count()
        self.admin: Final = admin
        self.region: Final = region

    async def heard(self, tenants: int) -> None:
        """Wait until a Core lists what was filled in, several times: each has its turn."""
        until = time.monotonic() + LOOK_S
        agreed = 0
        while agreed < 2 * self.at.options.cores:
            total = (await self.admin.tenants(self.region, limit=1))[1]
            agreed = agreed + 1 if total >= tenants else 0
            if time.monotonic() > until:
                raise RuntimeError("the Cores do not hear of what was filled in")

    async def heard_services(self, services: int) -> None:
        """The same for what was filled in of one tenant."""
        until, agreed = time.monotonic() + LOOK_S, 0
        while agreed < 2 * self.at.options.cores:
            total = (await self.admin.find(self.region, MANY)).services
            agreed = agreed + 1 if total >= services else 0
            if time.monotonic() > until:
                raise RuntimeError("the Cores do not hear of what was filled in")

    async def make_tenant(self, name: str) -> None:
        """A tenant through a Core, as an operator makes it."""
        record = statements.tenant(
            self.admin.identity, name, link="link-0", regions=self.at.regions, region_quorum="all"
        )
        await self.admin.put(self.region, "tenant", record)

    async def make_service(self, tenant: str, name: str) -> None:
        """A service through a Core."""
        record = statements.service(self.admin.identity, tenant, name)
        await self.admin.put(self.region, "service", record)

    async def stage(self, tenants: int, made: int) -> _Stage:
        """List all, and make and open some, one after the other."""
        names = [f"made-{next(self._numbers):05}" for _ in range(made)]
        making = await _Spent(self.at).on([partial(self.make_tenant, name) for name in names])
        for name in names:
            await self.make_service(name, SERVICE)
        opening = await _Spent(self.at).on([partial(self._open, name) for name in names])
        first = await timed(partial(self.admin.tenants, self.region, limit=256))
        before = worked(self.at, "core") + time.process_time()
        everything = await timed(partial(self.admin.tenants, self.region))
        listing = worked(self.at, "core") + time.process_time() - before
        return _Stage(tenants, first, everything, listing, making, opening)

    async def _open(self, tenant: str) -> None:
        done = await self._client.encrypt(tenant, SERVICE, [b""], deadline_s=30)
        _ = done.values


async def _services(work: _Work, fill: Filling, size: Size) -> list[Figure]:
    """One tenant with many services: shown, listed, and given another one."""
    await work.make_service(MANY, SERVICE)
    before, after = _Spent(work.at), _Spent(work.at)
    make = partial(work.make_service, MANY)
    await before.on([partial(make, f"before-{number}") for number in range(size.made)])
    await fill.services(MANY, range(size.services))
    await work.heard_services(size.services)
    await after.on([partial(make, f"made-{number}") for number in range(size.made)])
    admin, region, label = work.admin, work.region, f"{size.services} services"
    found = await timed(lambda: admin.find(region, MANY))
    listed = await timed(lambda: admin.services(region, MANY))
    shown = await timed(lambda: admin.tenant(region, MANY))
    pages = -(-size.services // 64)
    return [
        Figure(PART, f"{label}: finding their tenant", 1e3 * found, "ms", 1e3 * LIST_S),
        Figure(PART, f"{label}: the whole list", 1e3 * listed, "ms"),
        Figure(PART, f"{label}: a page with keys' versions", 1e3 * shown / pages, "ms", 1e3),
        Figure(PART, f"{label}: all with keys' versions", 1e3 * shown, "ms"),
        *before.figures("the first services: making one"),
        *after.figures(f"{label}: making one more"),
        after.beside(before, f"{label}: making one more, processor, over the first ones"),
    ]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds that a piece of work takes."""
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started
