"""What the demonstration encrypts: rows of a CSV file, given or made up."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import Final

ROWS: Final = 10_000
"""Rows that are made up when no file is given."""

SEED: Final = 20_240_501
"""The made-up rows are the same in every run."""

_FIRST: Final = ("Ada", "Grace", "Barbara", "Frances", "Hedy", "Radia", "Shafi", "Katherine")
_LAST: Final = ("Lovelace", "Hopper", "Liskov", "Allen", "Lamarr", "Perlman", "Goldwasser")


def from_file(path: Path) -> list[bytes]:
    """Every row of a CSV file, as it stands there, without its header line."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [_line(row) for row in rows[1:]]


def made_up(count: int = ROWS) -> list[bytes]:
    """Patients that nobody is."""
    draw = random.Random(SEED)  # noqa: S311 - data for a demonstration
    return [
        _line(
            [
                str(number),
                f"{draw.choice(_FIRST)} {draw.choice(_LAST)}",
                f"{draw.randrange(1930, 2020)}-{draw.randrange(1, 13):02}-01",
                f"DE{draw.randrange(10**20):020}",
                draw.choice(("A00.0", "E11.9", "I10", "J45.909", "M54.5")),
            ]
        )
        for number in range(count)
    ]


def _line(row: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(row)
    return out.getvalue().encode()
