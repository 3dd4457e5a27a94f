"""``python -m benchmarks [--quick] [--only PART] [--json FILE]``: measure, and print a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import bus, engine, peers, report, wraps
from benchmarks.measure import Case, Row, run
from benchmarks.rig import rig

PARTS: Final = ("wraps", "engine", "bus")
ROUNDS: Final = 25
BUS_ROUNDS: Final = 12
BUS_CALLS: Final = 100
"""Requests of a turn, one after another; a batch turn has a quarter of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 once everything was measured, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short rounds: does it work?")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result; - prints it")
    given = parser.parse_args(arguments)
    parts = (given.only,) if given.only else PARTS
    started = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows, found = runner.run(_in_process(parts, quick=given.quick))
    if "bus" in parts:
        with bus.running() as context, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows += runner.run(_over_the_bus(context, quick=given.quick))
    result = report.Run(
        rows=rows,
        machine=report.machine(),
        versions=report.versions(),
        peers=found,
        quick=given.quick,
        seconds=round(time.monotonic() - started, 1),
    )
    _tell(result, given.json)
    return 0


async def _in_process(parts: Sequence[str], *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    calls_max, rounds = (1, 1) if quick else (1 << 30, ROUNDS)
    rows: list[Row] = []
    async with rig() as made, peers.peers(calls_max) as others:
        if "wraps" in parts:
            rows += await _rows(wraps.cases(made, calls_max), rounds)
        if "engine" in parts:
            rows += await _rows(await engine.cases(made, others.turns, calls_max), rounds)
    return rows, dict(others.versions)


async def _over_the_bus(context: Path, *, quick: bool) -> list[Row]:
    calls, rounds = (4, 1) if quick else (BUS_CALLS, BUS_ROUNDS)
    async with bus.connected(context) as connections:
        return await _rows(await bus.cases(connections, calls), rounds)


async def _rows(cases: Sequence[Case], rounds: int) -> list[Row]:
    rows: list[Row] = []
    for case in cases:
        made = await run(case, rounds)
        print(report.table(made), file=sys.stderr, flush=True)
        rows += made
    return rows


def _tell(result: report.Run, target: Path | None) -> None:
    text = json.dumps(result.as_json(), indent=2)
    if target == Path("-"):
        print(text)
        return
    if target is not None:
        target.write_text(text + "\n")
    print(report.summary(result))


if __name__ == "__main__":
    sys.exit(main())
