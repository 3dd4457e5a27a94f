"""``python -m tests.simulation``: many seeds, on several processes, with what they covered.

Exits 1 when a run broke an invariant, or when a race on the list was never seen (in a run of
``RACES_FROM`` seeds or more).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.simulation.coverage import RACES, Coverage
from tests.simulation.noticing import searches
from tests.simulation.run import Result, run
from tests.simulation.variants import VARIANTS

RACES_FROM: Final = 500
"""Seeds of a run that has to cover every race."""

FAILURES_SHOWN: Final = 5
"""Failing seeds whose last events are printed."""


def main() -> int:
    """Run, print, and say whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--sample", type=int, help="run this many of them, chosen at random")
    parser.add_argument("--seed", type=int, help="one seed, with its last events")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--variants", action="store_true", help="every variant, until noticed")
    parser.add_argument("--variant", default="", choices=("", *VARIANTS), help="break something")
    parser.add_argument(
        "--excuse-in-flight",
        action="store_true",
        help="let answers be accepted that were asked for before a kill was complete",
    )
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for the results")
    asked = parser.parse_args()
    if asked.variants:
        return _variants(asked)
    seeds = _seeds(asked)
    began, results, coverage = time.monotonic(), [], Coverage()
    for result in _results(seeds, asked):
        results.append(result)
        coverage.update(result.coverage)
        if result.failure:
            print(f"seed {result.seed}: {result.failure[:300]}", flush=True)
        if len(results) % 100 == 0:
            failed = sum(bool(one.failure) for one in results)
            spent = time.monotonic() - began
            print(f"{len(results)} seeds, {failed} failed, {spent:.0f} s", flush=True)
    if asked.output:
        asked.output.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return _report(results, coverage, asked.seed is not None)


def _seeds(asked: argparse.Namespace) -> list[int]:
    """Return the seeds to run. Those of a sample are printed, so that it can be repeated."""
    if asked.seed is not None:
        return [asked.seed]
    seeds = range(asked.first, asked.first + asked.seeds)
    if asked.sample is None:
        return list(seeds)
    chosen = sorted(random.sample(seeds, asked.sample))
    print(f"{len(chosen)} of the seeds {seeds.start} to {seeds.stop - 1}:", *chosen, flush=True)
    return chosen


def _variants(asked: argparse.Namespace) -> int:
    """Try every variant, and say which seed noticed it first."""
    failed = 0
    with ProcessPoolExecutor(asked.jobs) as pool:
        for found in pool.map(searches(asked.first, asked.seeds), sorted(VARIANTS)):
            good = found.seed is not None and not found.unbroken
            failed += not good
            how = found.failure[:100] if good else found.unbroken or "NOT NOTICED"
            print(
                f"{found.variant:32s} seed {found.seed!s:>5} of {found.tried:4d}  {how}", flush=True
            )
    print(f"{len(VARIANTS)} variants, {failed} not noticed")
    return 1 if failed else 0


def _results(seeds: list[int], asked: argparse.Namespace) -> Iterator[Result]:
    count = len(seeds)
    arguments = (seeds, [asked.variant] * count, [asked.excuse_in_flight] * count)
    if count == 1 or asked.jobs == 1:
        yield from map(run, *arguments)
        return
    with ProcessPoolExecutor(asked.jobs) as pool:
        yield from pool.map(run, *arguments, chunksize=4)


def _report(results: list[Result], coverage: Coverage, alone: bool) -> int:
    failed = [result for result in results if result.failure]
    for result in failed[:FAILURES_SHOWN]:
        print(f"\nseed {result.seed}: {result.failure}")
        print("\n".join(result.events))
    if not alone:
        print("\nraces:")
        for race in RACES:
            print(f"{coverage[race]:8d}  {race}")
    cpu = sum(result.cpu_s for result in results) / len(results)
    served = sum(result.served for result in results)
    virtual = sum(result.virtual_s for result in results)
    print(
        f"\n{len(results)} seeds, {len(failed)} failed; {virtual / 3600:.1f} virtual hours, "
        f"{served} requests served, {cpu:.2f} s of CPU each"
    )
    unseen = coverage.missing if len(results) >= RACES_FROM else []
    if unseen:
        print(f"never seen: {', '.join(unseen)}")
    return 1 if failed or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
