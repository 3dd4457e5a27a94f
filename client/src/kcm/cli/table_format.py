"""Tables as rows of text with the places of the chosen cells in it.

Only the chosen cells are replaced: whatever else stands in a row stays as it is, byte for byte. A
row that is not understood has a ``problem`` and no cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

LINE_MAX: Final = 16 * 1024 * 1024
"""Characters of one row: bounds the memory that it takes."""

BOM: Final = "\ufeff"
"""What some programs write before a file's text."""

BASE64_START: Final = "S0NN"
"""How a record begins as a cell: "KCM" in base64."""

SHOWN_MAX: Final = 20
"""Names of columns that an error lists."""

SHOWN_CHARACTERS_MAX: Final = 40
"""Characters that it shows of each."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A chosen cell: its place in the row's text, and its value as text."""

    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``number`` counts as editors and spreadsheets do: a CSV's header is row 1."""

    number: int
    text: str
    """As it stands in the file, line end included; bytes that are not UTF-8 are escaped."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    bound: Mapping[str, bytes] = field(default_factory=dict)
    """The values that are bound to the row's cells, by column."""
    lacking: tuple[str, ...] = ()
    """The chosen fields that the row does not have."""
    problem: str = ""

    def render(self, changed: Mapping[str, str]) -> bytes:
        """The row with the text of some cells replaced."""
        out: list[str] = []
        at = 0
        for name, text in sorted(changed.items(), key=lambda item: self.cells[item[0]].start):
            out += (self.text[at : self.cells[name].start], text)
            at = self.cells[name].end
        return encoded("".join((*out, self.text[at:])))


class TableFormat(Protocol):
    """Reads rows, and says how a cell is written."""

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row; raises ``Problem`` when the table cannot be what was said of it.

        A header and empty lines are rows, too, with neither cells nor lacking fields.
        """
        ...

    def columns(self) -> str:
        """The names of the columns that were read, for an error."""
        ...

    def record(self, cell: Cell) -> str:
        """What an encrypted cell holds in base64; raises ``ValueError``."""
        ...

    def sealed(self, cell: Cell, record: str) -> str:
        """The text of an encrypted cell."""
        ...

    def opened(self, cell: Cell, plain: bytes) -> str:
        """The text of a decrypted cell; raises ``ValueError`` when it can be none."""
        ...

    def nothing(self, cell: Cell) -> str:
        """What stands in a cell that could not be encrypted."""
        ...


def encoded(text: str) -> bytes:
    """A row's text, or a part of it, as the bytes that it was read from."""
    return text.encode("utf-8", "surrogateescape")


def named(name: str) -> str:
    """A column's name as an error shows it: of a bounded length, and quoted where spaces end it."""
    short = name if len(name) <= SHOWN_CHARACTERS_MAX else f"{name[:SHOWN_CHARACTERS_MAX]}…"
    return short if name == name.strip() else f'"{short}"'


def listed(names: Iterable[str]) -> str:
    """Names of columns as an error shows them: the first ones, and each of a bounded length."""
    known = list(names)
    shown = [named(name) for name in known[:SHOWN_MAX]]
    more = [f"and {len(known) - SHOWN_MAX} more"] if len(known) > SHOWN_MAX else []
    return ", ".join([*shown, *more]) or "none"
