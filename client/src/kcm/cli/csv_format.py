"""CSV and TSV: values with a separator, in quotes where they need it, and a header line.

Python's ``csv`` says what a row and its values are; a pattern then finds where they stand. A cell
keeps its quotes when it is encrypted, and gets them again when it is decrypted.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from kcm.cli.error_report import Problem
from kcm.cli.table_format import BOM, LINE_MAX, Cell, Row, encoded, listed, named
from kcm.exit_codes import Exit

UTF16: Final = ("\udcff\udcfe", "\udcfe\udcff")
"""How a table in UTF-16 begins, read as UTF-8."""


class Delimited:
    """Separated values with a header line, in UTF-8 (other bytes pass through)."""

    def __init__(self, fields: Sequence[str], bind: Sequence[str], delimiter: str = ",") -> None:
        self._fields: Final = fields
        self._bind: Final = bind
        self._delimiter: Final = delimiter
        self._place: Final = re.compile(
            rf'("[^"]*(?:""[^"]*)*"|[^{re.escape(delimiter)}\r\n]*)(?:{re.escape(delimiter)}|\r?\n|\r|\Z)'
        )
        self._header: list[str] = []

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row, the header first; raises ``Problem`` when a column is not there."""
        csv.field_size_limit(LINE_MAX)
        text = io.TextIOWrapper(source, "utf-8", errors="surrogateescape", newline="")
        try:
            lines = _Lines(text)
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            header = _next(reader, 1)
            if not header:
                what = "the table is empty" if header is None else "line 1 of the table is empty"
                raise Problem(Exit.USAGE, "usage", what, "line 1 has to name the columns")
            if header[0].startswith(UTF16) or any("\0" in name for name in header):
                what = "the table is not UTF-8: its header begins as UTF-16 does, or has zeros"
                raise Problem(Exit.USAGE, "malformed", what, "`iconv -f UTF-16 -t UTF-8` makes one")
            self._take_header(header)
            yield Row(1, lines.take())
            number = 1
            while (values := _next(reader, number + 1)) is not None:
                number += 1
                yield self._row(number, lines.take(), values)
        finally:
            text.detach()

    def columns(self) -> str:
        """The names in the header."""
        return f"the columns are: {listed(self._header)}"

    def record(self, cell: Cell) -> str:
        """The cell's text."""
        return cell.value

    def sealed(self, cell: Cell, record: str) -> str:
        """Base64, in quotes where the plaintext was, or where the separator needs them."""
        return self._written(cell, record)

    def opened(self, cell: Cell, plain: bytes) -> str:
        """The plaintext, in quotes where the cell was, or where the text needs them."""
        return self._written(cell, plain.decode("utf-8", "surrogateescape"))

    def nothing(self, cell: Cell) -> str:
        """An empty cell."""
        return self._written(cell, "")

    def _written(self, cell: Cell, value: str) -> str:
        was_quoted = cell.end - cell.start != len(cell.value)
        alone = not value and len(self._header) == 1  # else an empty line, which is no row
        if was_quoted or alone or any(mark in value for mark in ('"', "\r", "\n", self._delimiter)):
            doubled = value.replace('"', '""')
            return f'"{doubled}"'
        return value

    def _take_header(self, header: list[str]) -> None:
        self._header = header
        for name in (*self._fields, *self._bind):
            if header.count(name) == 1:
                continue
            found = "several columns" if name in header else "no column"
            hint = "--fields and --bind take names of the header line, separated by commas"
            if len(header) == 1:
                hint = "is --delimiter the right one?"
            near = [one for one in header if one.strip() == name.strip() != one]
            if name not in header and near:
                hint = f"""spaces belong to a name: in quotation marks it is '"{near[0]}"'"""
            text = f"the header has {found} {named(name)}; {self.columns()}"
            raise Problem(Exit.USAGE, "usage", text, hint)

    def _row(self, number: int, text: str, values: list[str]) -> Row:
        if not values:
            return Row(number, text)
        if len(values) != len(self._header):
            problem = f"it has {len(values)} columns and the header has {len(self._header)}"
            return Row(number, text, problem=problem)
        cells = dict(zip(self._header, self._cells(text, values), strict=True))
        return Row(
            number,
            text,
            {name: cells[name] for name in self._fields},
            {name: encoded(cells[name].value) for name in self._bind},
        )

    def _cells(self, text: str, values: list[str]) -> Iterator[Cell]:
        at = 0
        for value in values:
            found = self._place.match(text, at)
            assert found is not None
            yield Cell(found.start(1), found.end(1), value)
            at = found.end()
        assert at == len(text), "every cell was found where it stands"


class _Lines:
    """The lines of a file, kept until their row is complete."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text: Final = text
        self._taken: list[str] = []
        self._size = 0
        self._first = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LINE_MAX + 1)
        if not line:
            raise StopIteration
        self._taken.append(line)
        self._size += len(line)
        if self._size > LINE_MAX:
            text = f"a row is longer than {LINE_MAX} characters, or a quotation does not end"
            raise Problem(Exit.USAGE, "too_large", text)
        first, self._first = self._first, False
        return line.removeprefix(BOM) if first else line

    def take(self) -> str:
        """The lines of the row that was read last, as one text."""
        text = "".join(self._taken)
        self._taken.clear()
        self._size = 0
        return text


def _next(reader: Iterator[list[str]], number: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error:
        # What follows a broken quotation cannot be told apart any more.
        text = f"row {number} is not understood: a quotation in it does not end well"
        raise Problem(Exit.USAGE, "malformed", text) from None
