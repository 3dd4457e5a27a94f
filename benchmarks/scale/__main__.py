"""``python -m benchmarks.scale [--quick] [--only PART] [--json FILE]``: measure thousands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from kcm_devsystem import system

from benchmarks.kill.living import REGIONS, running
from benchmarks.kill.parts import measure_all, run
from benchmarks.kill.sample import Figure
from benchmarks.scale import ended, lists, probes, purge

PARTS: Final = ("purge", "ended", "lists", "probes")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of everything."""

    blocks: tuple[int, ...]
    rounds: int
    size: lists.Size
    keys: probes.Keys
    cores: int
    holds: tuple[int, ...]
    probes_per_s: float | None = None
    """Fewer than usual, so that few keys are too many."""


FULL: Final = Extent(purge.BLOCKS, 5, lists.Size(), probes.Keys(), cores=2, holds=ended.COUNTS)

QUICK: Final = Extent(
    blocks=(2, 20),
    rounds=2,
    size=lists.Size(tenants=(20, 300), services=70, made=2),
    keys=probes.Keys(steps=(4, 20), shared=4, seconds=1.0, settle_s=0.5),
    cores=1,
    holds=(300, 3_000),
    probes_per_s=1.0,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 once everything was measured, whatever the figures are; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="very little of it: does it work?")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result; - prints it")
    given = parser.parse_args(arguments)
    extent = QUICK if given.quick else FULL
    names = (given.only,) if given.only else PARTS
    parts = (partial(_PARTS[name], extent) for name in names)
    return measure_all(parts, given.json, quick=given.quick)


def _options(extent: Extent) -> system.Options:
    return system.Options(
        Path(), regions=REGIONS[:1], cores=extent.cores, probes_per_s=extent.probes_per_s
    )


def _purge(extent: Extent) -> list[Figure]:
    return run(purge.measure(extent.blocks, extent.rounds))


def _ended(extent: Extent) -> list[Figure]:
    return ended.measure(extent.holds, ended.ROUNDS if extent is FULL else 20)


def _lists(extent: Extent) -> list[Figure]:
    with running(_options(extent)) as at:
        return run(lists.measure(at, extent.size))


def _probes(extent: Extent) -> list[Figure]:
    with running(_options(extent)) as at:
        return run(probes.measure(at, extent.keys))


_PARTS: Final[dict[str, Callable[[Extent], list[Figure]]]] = {
    "purge": _purge,
    "ended": _ended,
    "lists": _lists,
    "probes": _probes,
}


if __name__ == "__main__":
    sys.exit(main())
