"""Figures as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.kill.sample import Figure


def table(figures: Sequence[Figure]) -> str:
    """The figures of parts, aligned."""
    lines = []
    previous = ""
    for figure in figures:
        if figure.part != previous:
            lines.append(f"\n{figure.part}")
            previous = figure.part
        note = f"  ({figure.note})" if figure.note else ""
        lines.append(
            f"  {figure.name:66}{figure.value:12.2f} {figure.unit}{note}{_verdict(figure)}"
        )
    return "\n".join(lines)


def _verdict(figure: Figure) -> str:
    if figure.target is None:
        return ""
    bound = "at least" if figure.at_least else "at most"
    return f"  target {bound} {figure.target:g}: {'met' if figure.met else 'MISSED'}"


def tell(figures: Sequence[Figure], target: Path | None, *, quick: bool, seconds: float) -> None:
    """Write everything as JSON, or what the figures were taken on and which targets were missed."""
    machine, versions = report.machine(), report.versions()
    missed = [f"{one.part}, {one.name}" for one in figures if one.met is False]
    result = {
        "machine": machine,
        "versions": versions,
        "quick": quick,
        "seconds": seconds,
        "figures": [figure.as_json() for figure in figures],
    }
    text = json.dumps(result, indent=2)
    if target == Path("-"):
        print(text)
        return
    if target is not None:
        target.write_text(text + "\n")
    print("\nmachine   " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print("versions  " + ", ".join(f"{name} {value}" for name, value in versions.items()))
    print("missed    " + ("; ".join(missed) or "no target"))
    print(f"time      {seconds:.0f} s" + (" (--quick: says nothing)" if quick else ""))
