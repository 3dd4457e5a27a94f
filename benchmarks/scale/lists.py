"""Lists, making and opening in a running region, while the number of its tenants grows.

Between two sizes the region is filled with tenants that nobody asks for. At each size the same
things are done, so a ratio to the smallest size says what the others cost whoever is asked for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from kcm import Admin, Client, statements

from benchmarks.kill.living import SERVICE, System, make_links
from benchmarks.kill.sample import Figure
from benchmarks.measure import percentile
from benchmarks.scale.filling import Filling, filling

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


@dataclass(frozen=True, slots=True)
class _Stage:
    """What was measured with so many tenants; seconds."""

    tenants: int
    first: float
    everything: float
    making: list[float]
    opening: list[float]

    def figures(self, smallest: _Stage) -> list[Figure]:
        label = f"{self.tenants} tenants"
        figures = [
            Figure(PART, f"{label}: first page of the list", 1e3 * self.first, "ms", 1e3 * LIST_S),
            Figure(PART, f"{label}: the whole list", 1e3 * self.everything, "ms"),
            Figure(PART, f"{label}: making one, median", 1e3 * percentile(self.making, 50), "ms"),
            Figure(PART, f"{label}: opening one, median", 1e3 * percentile(self.opening, 50), "ms"),
        ]
        if self is not smallest:
            for name, ours, theirs in (
                ("making", self.making, smallest.making),
                ("opening", self.opening, smallest.opening),
            ):
                ratio = percentile(ours, 50) / percentile(theirs, 50)
                text = f"{label}: {name} one, over {smallest.tenants} tenants"
                figures.append(Figure(PART, text, ratio, "times", FLAT))
        return figures


class _Work:
    """An operator and an application of one region."""

    def __init__(self, at: System, admin: Admin, client: Client, region: str) -> None:
        self._at: Final = at
        self._client: Final = client
        self._numbers: Final[Iterator[int]] = itertools.count()
        self.admin: Final = admin
        self.region: Final = region

    async def heard(self, tenants: int) -> None:
        """Wait until a Core lists what was filled in, several times: each has its turn."""
        until = time.monotonic() + LOOK_S
        agreed = 0
        while agreed < 2 * self._at.options.cores:
            total = (await self.admin.tenants(self.region, limit=1))[1]
            agreed = agreed + 1 if total >= tenants else 0
            if time.monotonic() > until:
                raise RuntimeError("the Cores do not hear of what was filled in")

    async def make_tenant(self, name: str) -> None:
        """A tenant through a Core, as an operator makes it."""
        record = statements.tenant(
            self.admin.identity, name, link="link-0", regions=self._at.regions, fence="all"
        )
        await self.admin.put(self.region, "tenant", record)

    async def make_service(self, tenant: str, name: str) -> None:
        """A service through a Core."""
        record = statements.service(self.admin.identity, tenant, name)
        await self.admin.put(self.region, "service", record)

    async def stage(self, tenants: int, made: int) -> _Stage:
        """List all, and make and open some, one after the other."""
        making, opening = [], []
        for _ in range(made):
            name = f"made-{next(self._numbers):05}"
            making.append(await timed(lambda name=name: self.make_tenant(name)))  # type: ignore[misc]
            await self.make_service(name, SERVICE)
            opening.append(await timed(lambda name=name: self._open(name)))  # type: ignore[misc]
        pages = self.admin.tenants
        return _Stage(
            tenants,
            await timed(lambda: pages(self.region, limit=256)),
            await timed(lambda: pages(self.region)),
            making,
            opening,
        )

    async def _open(self, tenant: str) -> None:
        done = await self._client.encrypt(tenant, SERVICE, [b""], deadline_s=30)
        done.unwrap()


async def _services(work: _Work, fill: Filling, size: Size) -> list[Figure]:
    """One tenant with many services: shown, listed, and given another one."""
    await work.make_service(MANY, SERVICE)
    before = [
        await timed(lambda n=n: work.make_service(MANY, f"before-{n}"))  # type: ignore[misc]
        for n in range(size.made)
    ]
    await fill.services(MANY, range(size.services))
    after = [
        await timed(lambda n=n: work.make_service(MANY, f"made-{n}"))  # type: ignore[misc]
        for n in range(size.made)
    ]
    admin, region, label = work.admin, work.region, f"{size.services} services"
    found = await timed(lambda: admin.find(region, MANY))
    listed = await timed(lambda: admin.services(region, MANY))
    shown = await timed(lambda: admin.tenant(region, MANY))
    pages = -(-size.services // 64)
    ratio = percentile(after, 50) / percentile(before, 50)
    return [
        Figure(PART, f"{label}: finding their tenant", 1e3 * found, "ms", 1e3 * LIST_S),
        Figure(PART, f"{label}: the whole list", 1e3 * listed, "ms"),
        Figure(PART, f"{label}: a page with keys' versions", 1e3 * shown / pages, "ms", 1e3),
        Figure(PART, f"{label}: all with keys' versions", 1e3 * shown, "ms"),
        Figure(PART, f"{label}: making one more, over the first ones", ratio, "times", FLAT),
    ]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds that a piece of work takes."""
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started
