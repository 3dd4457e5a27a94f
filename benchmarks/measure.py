"""Measuring by turns: whoever is compared works alternately, and ratios are taken turn by turn.

A shared machine's clock drifts by a factor of two within minutes, so a time alone says little.
Contestants of a case therefore take turns (A B C, A B C, …), a contestant's ratio is taken to the
baseline's turn *of the same round*, and the median of these ratios is what is reported, with the
10th and 90th percentile as the spread.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Turn = Callable[[], Awaitable[Sequence[float]]]
"""Works through a turn and returns its samples: seconds that one unit (a record, a key) took."""

BASELINE: Final = "bare"
"""The contestant to which the others are compared, where a case names no other."""

LEFT_OVER_STEPS: Final = 4
"""Turns of the event loop in which what was left over is done: without a network it needs two."""

WARM_UP: Final = 2
"""Rounds that are not counted: caches, pools and lazily made things fill."""


@dataclass(frozen=True, slots=True)
class Case:
    """Contestants that do the same job; ``targets`` are ratios of speed to the baseline's."""

    name: str
    unit: str
    contestants: Mapping[str, Turn]
    targets: Mapping[str, float] = field(default_factory=dict)
    baseline: str = BASELINE


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant of one case. Ratios are of speed: 1.0 is as fast as the baseline."""

    case: str
    unit: str
    contestant: str
    rounds: int
    samples: int
    microseconds: float
    """The median turn's microseconds for one unit."""
    per_second: float
    p50_us: float
    p99_us: float
    """Over the samples of all turns. Where a turn is one sample, that is a turn's average."""
    ratio: float
    ratio_p10: float
    ratio_p90: float
    target: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; none where there is no target."""
        return None if self.target is None else self.ratio >= self.target


async def run(case: Case, rounds: int, *, rotate: bool = False) -> list[Row]:
    """Let everybody take ``rounds`` turns, alternating; ``rotate``: another one begins each round.

    Where a few per cent are looked for, who comes first must not always be the same.
    """
    samples: dict[str, list[Sequence[float]]] = {name: [] for name in case.contestants}
    for number in range(WARM_UP + rounds):
        gc.collect()
        for name in in_turns(number if rotate else 0, list(case.contestants)):
            took = await case.contestants[name]()
            if number >= WARM_UP:
                samples[name].append(took)
    base = [percentile(turn, 50) for turn in samples[case.baseline]]
    return [_row(case, name, turns, base) for name, turns in samples.items()]


def in_turns(number: int, names: Sequence[str]) -> list[str]:
    """The order of a round: whoever began the last one comes last."""
    at = number % len(names)
    return [*names[at:], *names[:at]]


def _row(case: Case, name: str, turns: Sequence[Sequence[float]], base: Sequence[float]) -> Row:
    medians = [percentile(turn, 50) for turn in turns]
    ratios = [theirs / ours for ours, theirs in zip(medians, base, strict=True)]
    everything = [sample for turn in turns for sample in turn]
    middle = percentile(medians, 50)
    return Row(
        case=case.name,
        unit=case.unit,
        contestant=name,
        rounds=len(turns),
        samples=len(everything),
        microseconds=middle * 1e6,
        per_second=1 / middle,
        p50_us=percentile(everything, 50) * 1e6,
        p99_us=percentile(everything, 99) * 1e6,
        ratio=percentile(ratios, 50),
        ratio_p10=percentile(ratios, 10),
        ratio_p90=percentile(ratios, 90),
        target=case.targets.get(name),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which ``percent`` of a sample lie, interpolated linearly."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a sample has at least one value")
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def cpu(units: int, work: Callable[[], object]) -> Turn:
    """A turn of this process's CPU time, for synchronous work on ``units`` units."""

    async def turn() -> list[float]:
        started = time.process_time()
        work()
        return [(time.process_time() - started) / units]

    return turn


def cpu_async(units: int, work: Callable[[], Awaitable[object]]) -> Turn:
    """A turn of this process's CPU time, with whatever the event loop does for it.

    What the work left to be done at once (a pool refills itself ahead of need) belongs to its turn:
    nobody else shall pay for it, or it would not be counted at all.
    """

    async def turn() -> list[float]:
        started = time.process_time()
        await work()
        for _ in range(LEFT_OVER_STEPS):
            await asyncio.sleep(0)
        return [(time.process_time() - started) / units]

    return turn


def wall(calls: int, units: int, call: Callable[[], Awaitable[object]]) -> Turn:
    """A turn of ``calls`` calls one after another, of ``units`` units each, by the wall clock."""

    async def turn() -> list[float]:
        took = []
        for _ in range(calls):
            started = time.perf_counter()
            await call()
            took.append((time.perf_counter() - started) / units)
        return took

    return turn
