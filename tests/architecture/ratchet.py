"""Budgets of known faults: a number for each name, in a file, which may only shrink."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def read(path: Path) -> Counter[str]:
    """Return the budget in a file; there is none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = [line.rsplit(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return Counter({name: int(number) for name, number in entries})


def write(path: Path, head: str, budget: Mapping[str, int]) -> None:
    """Write a budget, sorted by name, below a comment that says what it is."""
    lines = (f"{name} {number}\n" for name, number in sorted(budget.items()) if number)
    path.write_text(f"# {head} These numbers may only shrink.\n" + "".join(lines), encoding="utf-8")
