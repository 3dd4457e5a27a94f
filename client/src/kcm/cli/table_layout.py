"""A table that fits: only texts wrap, at spaces; what does not fit is shown as one block a row.

A name or an id that is cut in two lines can neither be read nor copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from kcm.cli.error_report import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

WHOLE_MAX: Final = 20
"""Characters of a cell that never wraps, although it has spaces: a moment has 19."""

AROUND: Final = 3
"""Characters around a column's text."""

PAIR: Final = 2
"""Columns of a table whose first one names what stands in the other."""

NOTHING: Final = "none"
"""In place of a table without rows."""

Cells = list[list[str]]


def laid_out(
    columns: Sequence[str], rows: Iterable[Sequence[object]], width: int
) -> RenderableType:
    """Rows for a terminal of this width. Cells are text: no markup, no control characters."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return NOTHING
    widths = _widths(columns, cells, width - AROUND * len(columns))
    if widths is not None:
        return _table(columns, cells, widths)
    names = [columns[0], *(row[0] for row in cells)]
    if len(columns) == PAIR and max(map(len, names)) <= WHOLE_MAX:
        return _grid([list(columns), *cells])
    return _blocks(columns, cells)


def _widths(columns: Sequence[str], cells: Cells, width: int) -> list[int] | None:
    """How wide each column is; none when they do not fit."""
    from rich.cells import cell_len

    whole, least = [], []
    for number, name in enumerate(columns):
        texts = [name, *(row[number] for row in cells)]
        whole.append(max(map(cell_len, texts)))
        words = max(cell_len(word) for text in texts for word in text.split(" "))
        least.append(whole[-1] if whole[-1] <= WHOLE_MAX else words)
    if sum(least) > width:
        return None
    while sum(whole) > width:
        widest = max(range(len(whole)), key=lambda number: whole[number] - least[number])
        whole[widest] -= 1
    return whole


def _table(columns: Sequence[str], cells: Cells, widths: Sequence[int]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        grid.add_column(column, width=width, overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    return grid


def _blocks(columns: Sequence[str], cells: Cells) -> RenderableType:
    """Each row by itself, a line for each column, and an empty line behind it."""
    lines: Cells = []
    for row in cells:
        lines += ([name, cell] for name, cell in zip(columns, row, strict=True))
        lines.append([])
    return _grid(lines)


def _grid(lines: Cells) -> RenderableType:
    """Names, and beside each what it stands for."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(*map(Text, line))
    return grid
