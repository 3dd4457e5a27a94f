"""The parts of a benchmark: measured one after the other, and reported together."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path

import uvloop
from kcm.cli.signals import orderly

from benchmarks.kill.sample import Figure
from benchmarks.kill.telling import table, tell


def measure_all(
    parts: Iterable[Callable[[], list[Figure]]], target: Path | None, *, quick: bool
) -> int:
    """Exit 0 once everything was measured, whatever the figures are; 130 after Ctrl-C."""
    started = time.monotonic()
    figures: list[Figure] = []
    try:
        with orderly():
            for part in parts:
                found = part()
                print(table(found), file=sys.stderr, flush=True)
                figures += found
    except KeyboardInterrupt:
        print("interrupted; everything that was started is gone", file=sys.stderr)
        return 130
    tell(figures, target, quick=quick, seconds=round(time.monotonic() - started, 1))
    return 0


def run(work: Coroutine[object, object, list[Figure]]) -> list[Figure]:
    """Measure in a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
