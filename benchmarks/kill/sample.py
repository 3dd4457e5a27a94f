"""Turns that belong together, and what is said of them.

A kill and a bare broadcast of the same round saw the same machine in the same moment, so they are
compared as pairs; the percentiles over all rounds are compared as well, since a target is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.measure import Row, percentile

Unit = Literal["ms", "µs", "s", "%", "1/s", "KiB/s", "MiB", "", "times"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the report. ``target`` is what it may be at most, or at least."""

    part: str
    name: str
    value: float
    unit: Unit
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; none where there is no target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"met": self.met}


def spread(part: str, name: str, seconds: Sequence[float]) -> list[Figure]:
    """Median, 99th percentile and maximum of times, in milliseconds."""
    return [
        Figure(part, f"{name}, p50", 1e3 * percentile(seconds, 50), "ms"),
        Figure(part, f"{name}, p99", 1e3 * percentile(seconds, 99), "ms"),
        Figure(part, f"{name}, maximum", 1e3 * max(seconds), "ms"),
    ]


def beside(
    part: str, name: str, seconds: Sequence[float], bare: Sequence[float], target: float
) -> list[Figure]:
    """How many times as long as the bare broadcast: by 99th percentile, and pair by pair.

    The two samples are of the same rounds, in their order.
    """
    pairs = [ours / theirs for ours, theirs in zip(seconds, bare, strict=True)]
    p99 = percentile(seconds, 99) / percentile(bare, 99)
    return [
        Figure(part, f"{name}, p99 over the broadcast's p99", p99, "times", target),
        Figure(
            part,
            f"{name}, over the broadcast of the same round, median",
            percentile(pairs, 50),
            "times",
        ),
    ]


def of_rows(rows: Sequence[Row]) -> list[Figure]:
    """Turns of contestants: a ratio of speed for each, and the baseline's time."""
    figures = []
    for row in rows:
        if row.ratio == row.ratio_p10 == row.ratio_p90 == 1.0:
            name = f"{row.contestant}, time for one {row.unit}"
            figures.append(Figure(row.case, name, row.microseconds, "µs"))
        else:
            name = f"{row.contestant}, ratio of speed"
            spread = f"{row.ratio_p10:.2f} to {row.ratio_p90:.2f}"
            figures.append(
                Figure(row.case, name, row.ratio, "times", row.target, at_least=True, note=spread)
            )
    return figures
