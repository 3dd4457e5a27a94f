"""CSV and TSV: values with a separator, quoted where necessary, and a header line.

Python's ``csv`` module parses rows and values. A pattern then finds their positions in the text. A
cell keeps its quotes in both directions.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from kcm_schemas.text import counted

from kcm.cli.error_report import Problem
from kcm.cli.table_format import BOM, LINE_MAX, Cell, Row, encoded, listed, named
from kcm.exit_codes import Exit

UTF16: Final = ("\udcff\udcfe", "\udcfe\udcff")
"""The start of a table in UTF-16 when it is read as UTF-8."""

QUOTATION: Final = "check the quotation marks near that row, --delimiter and --as"
"""The hint for a row that does not end where it should."""


class Delimited:
    """Separated values with a header line, in UTF-8. Other bytes pass through."""

    def __init__(self, fields: Sequence[str], bind: Sequence[str], delimiter: str = ",") -> None:
        self._fields: Final = fields
        self._bind: Final = bind
        self._delimiter: Final = delimiter
        self._place: Final = re.compile(
            rf'("[^"]*(?:""[^"]*)*"|[^{re.escape(delimiter)}\r\n]*)(?:{re.escape(delimiter)}|\r?\n|\r|\Z)'
        )
        self._header: list[str] = []

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row, the header first; raises ``Problem`` if a column is missing."""
        csv.field_size_limit(LINE_MAX)
        text = io.TextIOWrapper(source, "utf-8", errors="surrogateescape", newline="")
        try:
            lines = _Lines(text)
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            header = _next(reader, 1)
            if not header:
                what = "the table is empty" if header is None else "line 1 of the table is empty"
                raise Problem(Exit.USAGE, "usage", what, "line 1 must name the columns")
            if header[0].startswith(UTF16) or any("\0" in name for name in header):
                what = "the table is not UTF-8: its header begins like UTF-16, or has zero bytes"
                hint = "convert it with `iconv -f UTF-16 -t UTF-8`"
                raise Problem(Exit.USAGE, "malformed", what, hint)
            self._take_header(header)
            yield Row(1, lines.take())
            number = 1
            while (values := _next(reader, number + 1)) is not None:
                number += 1
                yield self._row(number, lines.take(), values)
        finally:
            text.detach()

    def columns(self) -> str:
        """Return the names in the header as a text."""
        return f"the columns are: {listed(self._header)}"

    def record(self, cell: Cell) -> str:
        """Return the cell's text."""
        return cell.value

    def sealed(self, cell: Cell, record: str) -> str:
        """Return base64, quoted if the plaintext was, or if the separator requires it."""
        return self._written(cell, record)

    def opened(self, cell: Cell, plain: bytes) -> str:
        """Return the plaintext, quoted if the cell was, or if the text requires it."""
        return self._written(cell, plain.decode("utf-8", "surrogateescape"))

    def nothing(self, cell: Cell) -> str:
        """Return an empty cell."""
        return self._written(cell, "")

    def _written(self, cell: Cell, value: str) -> str:
        was_quoted = cell.end - cell.start != len(cell.value)
        alone = not value and len(self._header) == 1  # else an empty line, which is not a row
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
                hint = "check --delimiter"
            near = [one for one in header if one.strip() == name.strip() != one]
            if name not in header and near:
                hint = f"""spaces are part of a name: quote it as '"{near[0]}"'"""
            text = f"the header has {found} {named(name)}; {self.columns()}"
            raise Problem(Exit.USAGE, "usage", text, hint)

    def _row(self, number: int, text: str, values: list[str]) -> Row:
        if not values:
            return Row(number, text)
        if len(values) != len(self._header):
            found = counted(len(values), "column")
            problem = f"it has {found}, but the header has {len(self._header)}"
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
        assert at == len(text), "the cells cover the whole row"


class _Lines:
    """The lines of a file, collected until their row is complete."""

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
            text = f"a row is longer than {LINE_MAX} characters, or a quoted cell does not end"
            raise Problem(Exit.USAGE, "too_large", text, QUOTATION)
        first, self._first = self._first, False
        return line.removeprefix(BOM) if first else line

    def take(self) -> str:
        """Return the lines of the last row as one text."""
        text = "".join(self._taken)
        self._taken.clear()
        self._size = 0
        return text


def _next(reader: Iterator[list[str]], number: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error:
        # After a broken quotation, the following rows cannot be separated.
        text = f"row {number} cannot be parsed: a quoted cell in it does not end correctly"
        raise Problem(Exit.USAGE, "malformed", text, QUOTATION) from None
