"""Tables as rows of text with the positions of the chosen cells.

Only the chosen cells are replaced. The rest of a row stays the same, byte for byte. A row that
cannot be parsed has a ``problem`` and no cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

LINE_MAX: Final = 16 * 1024 * 1024
"""Characters of one row. The limit bounds the memory for it."""

BOM: Final = "\ufeff"
"""The byte order mark, which some programs write before the text."""

BASE64_START: Final = "S0NN"
"""The start of a record in a cell: "KCM" in base64."""

SHOWN_MAX: Final = 20
"""Names of columns that an error lists."""

SHOWN_CHARACTERS_MAX: Final = 40
"""Characters of each name that an error shows."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A chosen cell: its position in the row's text, and its value as text."""

    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``number`` counts from 1, like editors and spreadsheets; a CSV's header is row 1."""

    number: int
    text: str
    """The text in the file with its line end; bytes that are not UTF-8 are escaped."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    bound: Mapping[str, bytes] = field(default_factory=dict)
    """By column, the values that are bound to the row's cells."""
    lacking: tuple[str, ...] = ()
    """The chosen fields that the row does not have."""
    problem: str = ""

    def render(self, changed: Mapping[str, str]) -> bytes:
        """Return the row with the text of some cells replaced."""
        out: list[str] = []
        at = 0
        for name, text in sorted(changed.items(), key=lambda item: self.cells[item[0]].start):
            out += (self.text[at : self.cells[name].start], text)
            at = self.cells[name].end
        return encoded("".join((*out, self.text[at:])))


class TableFormat(Protocol):
    """Reads rows, and formats cells."""

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row; raises ``Problem`` if the table does not have this format.

        A header and empty lines are rows, too, without cells and lacking fields.
        """
        ...

    def columns(self) -> str:
        """Return the names of the columns as a text for an error."""
        ...

    def record(self, cell: Cell) -> str:
        """Return the base64 text of an encrypted cell; raises ``ValueError``."""
        ...

    def sealed(self, cell: Cell, record: str) -> str:
        """Return the text of an encrypted cell."""
        ...

    def opened(self, cell: Cell, plain: bytes) -> str:
        """Return the text of a decrypted cell; raises ``ValueError`` for a bad plaintext."""
        ...

    def nothing(self, cell: Cell) -> str:
        """Return the text of a cell that could not be encrypted."""
        ...


def encoded(text: str) -> bytes:
    """Return the bytes of a row's text, or of a part of it."""
    return text.encode("utf-8", "surrogateescape")


def named(name: str) -> str:
    """Return a column's name for an error: bounded, and quoted if spaces surround it."""
    short = name if len(name) <= SHOWN_CHARACTERS_MAX else f"{name[:SHOWN_CHARACTERS_MAX]}…"
    return short if name == name.strip() else f'"{short}"'


def listed(names: Iterable[str]) -> str:
    """Return the first names of columns for an error, each of bounded length."""
    known = list(names)
    shown = [named(name) for name in known[:SHOWN_MAX]]
    more = [f"and {len(known) - SHOWN_MAX} more"] if len(known) > SHOWN_MAX else []
    return ", ".join([*shown, *more]) or "none"
