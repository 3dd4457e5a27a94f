"""``python -m benchmarks.fair [--quick] [--only FLOOD] [--json FILE]``: floods beside quiet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kcm_devsystem import system

from benchmarks.fair.beside import FLOODS, Extent, measure
from benchmarks.kill.living import running
from benchmarks.kill.parts import measure_all, run
from benchmarks.kill.sample import Figure

FULL = Extent(rounds=4, calls=40)
QUICK = Extent(rounds=1, calls=10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 once everything was measured, whatever the figures are; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fair", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="very little of it: does it work?")
    parser.add_argument("--only", choices=FLOODS, help="one flood instead of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result; - prints it")
    given = parser.parse_args(arguments)
    floods = (given.only,) if given.only else FLOODS
    part = partial(_measure, floods, QUICK if given.quick else FULL)
    return measure_all([part], given.json, quick=given.quick)


def _measure(floods: Sequence[str], extent: Extent) -> list[Figure]:
    with running(system.Options(Path(), regions=("eu-de",), cores=1)) as at:
        return run(measure(at, floods, extent))


if __name__ == "__main__":
    sys.exit(main())
