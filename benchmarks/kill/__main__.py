"""``python -m benchmarks.kill [--quick] [--only PART] [--json FILE]``: measure the kill switch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from kcm_devsystem import system

from benchmarks import measure
from benchmarks.kill import broadcast, checked, crash, flood, purge, refusal, stream
from benchmarks.kill.living import REGIONS, running
from benchmarks.kill.parts import measure_all, run
from benchmarks.kill.sample import Figure, of_rows

PARTS: Final = ("purge", "checked", "stream", "refusal", "flood", "crash", "broadcast")
"""From what needs one process to what needs most."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of everything."""

    rounds: int
    tenants: tuple[int, ...]
    holds: tuple[int, ...]
    calls: int
    size: stream.Size
    flips: int
    floods: int
    crashes: int
    regions: tuple[str, ...]
    cores: int
    load: broadcast.Load


FULL: Final = Extent(
    rounds=25,
    tenants=purge.TENANTS,
    holds=purge.HOLDS,
    calls=checked.CALLS,
    size=stream.Size(),
    flips=20,
    floods=50,
    crashes=8,
    regions=REGIONS,
    cores=3,
    load=broadcast.Load(tenants=1000, links=4, kills=200, pause_s=0.1),
)

QUICK: Final = Extent(
    rounds=1,
    tenants=(1, 10),
    holds=(0, 10),
    calls=1,
    size=stream.Size(cores=2, gateways=2, keys=20, few=2, seconds=1.0),
    flips=1,
    floods=1,
    crashes=1,
    regions=REGIONS[:2],
    cores=1,
    load=broadcast.Load(tenants=4, links=2, kills=2, pause_s=0.2, passes=1),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 once everything was measured, whatever the figures are; 130 after Ctrl-C."""
    given = _arguments(arguments)
    extent = QUICK if given.quick else FULL
    load = broadcast.Load(
        tenants=given.tenants or extent.load.tenants,
        links=extent.load.links,
        kills=given.kills or extent.load.kills,
        pause_s=extent.load.pause_s,
        passes=extent.load.passes,
    )
    names = (given.only,) if given.only else PARTS
    parts = (partial(_PARTS[name], extent, load) for name in names)
    return measure_all(parts, given.json, quick=given.quick)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="very little of it: does it work?")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument("--tenants", type=int, default=0, help="tenants that are open under load")
    parser.add_argument("--kills", type=int, default=0, help="kills under load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result; - prints it")
    return parser.parse_args(arguments)


def _purge(extent: Extent, _: broadcast.Load) -> list[Figure]:
    async def work() -> list[Figure]:
        async with purge.cases(extent.tenants, extent.holds) as cases:
            return await _cases(cases, extent.rounds)

    return run(work())


def _checked(extent: Extent, _: broadcast.Load) -> list[Figure]:
    async def work() -> list[Figure]:
        async with checked.cases(extent.calls) as cases:
            return await _cases(cases, extent.rounds)

    return run(work())


async def _cases(cases: Sequence[measure.Case], rounds: int) -> list[Figure]:
    figures = []
    for case in cases:
        figures += of_rows(await measure.run(case, rounds, rotate=True))
    return figures


def _stream(extent: Extent, _: broadcast.Load) -> list[Figure]:
    with stream.broker(extent.size) as (plan, verifier):
        return run(stream.measure(plan, verifier, extent.size))


def _refusal(extent: Extent, _: broadcast.Load) -> list[Figure]:
    options = system.Options(Path(), regions=extent.regions, cores=1, timing=refusal.TIMING)
    with running(options) as at:
        return run(refusal.measure(at, extent.flips))


def _flood(extent: Extent, _: broadcast.Load) -> list[Figure]:
    options = system.Options(Path(), regions=extent.regions[:2], cores=min(2, extent.cores))
    with running(options) as at:
        return run(flood.measure(at, extent.floods))


def _crash(extent: Extent, _: broadcast.Load) -> list[Figure]:
    cores = min(2, extent.cores)
    options = system.Options(Path(), regions=extent.regions[:2], cores=cores, timing=crash.TIMING)
    with running(options) as at:
        return run(crash.measure(at, extent.crashes))


def _broadcast(extent: Extent, load: broadcast.Load) -> list[Figure]:
    with running(system.Options(Path(), regions=extent.regions, cores=extent.cores)) as at:
        return run(broadcast.measure(at, load))


_PARTS: Final[dict[str, Callable[[Extent, broadcast.Load], list[Figure]]]] = {
    "purge": _purge,
    "checked": _checked,
    "stream": _stream,
    "refusal": _refusal,
    "flood": _flood,
    "crash": _crash,
    "broadcast": _broadcast,
}


if __name__ == "__main__":
    sys.exit(main())
