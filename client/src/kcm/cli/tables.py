"""Tables as rows: CSV with a header line, or JSON lines.

A row keeps what it is besides the chosen fields: the other columns' values pass through untouched
(CSV may be quoted differently, JSON numbers written differently). A row that is not understood has
a ``problem`` and no cells.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Protocol

from kcm.cli.exits import Exit
from kcm.cli.problems import Problem

LINE_MAX: Final = 16 * 1024 * 1024
"""Characters of one line, or of one CSV field: bounds the memory that one row can take."""

BOM: Final = "\ufeff"
"""What some programs write before a CSV header."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``number`` counts as editors and spreadsheets do: a CSV's header is row 1."""

    number: int
    content: Any
    cells: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


class TableFormat(Protocol):
    """Reads rows, writes them again with other cells, and says what a cell is as bytes."""

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row, one with the header first (it has neither cells nor problem)."""
        ...

    def render(self, row: Row, cells: Mapping[str, Any]) -> bytes:
        """The row's line with some cells replaced."""
        ...

    def to_bytes(self, value: Any) -> bytes:
        """A plain cell as what is encrypted."""
        ...

    def from_bytes(self, data: bytes) -> Any:
        """What was encrypted, as a cell again; raises ``ValueError``."""
        ...

    @property
    def nothing(self) -> Any:
        """What stands in a cell that could not be encrypted."""
        ...


class Csv:
    """Comma-separated values with a header line, in UTF-8 (other bytes pass through)."""

    nothing = ""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields: Final = fields
        self._columns: dict[str, int] = {}
        self._width = 0
        self._end = "\n"

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row; raises ``Problem`` when a field is not in the header."""
        csv.field_size_limit(LINE_MAX)
        text = io.TextIOWrapper(source, "utf-8", errors="surrogateescape", newline="")
        try:
            reader = csv.reader(self._lines(text), strict=True)
            header = self._next(reader)
            if header is None:
                raise Problem(Exit.USAGE, "usage", "the file has no header line")
            self._take_header(header)
            yield Row(1, header)
            number = 1
            while (values := self._next(reader)) is not None:
                number += 1
                yield self._row(number, values)
        finally:
            text.detach()

    def render(self, row: Row, cells: Mapping[str, Any]) -> bytes:
        """The row's line with some cells replaced."""
        values = list(row.content)
        for name, value in cells.items():
            values[self._columns[name]] = value
        line = io.StringIO()
        csv.writer(line, lineterminator=self._end).writerow(values)
        return line.getvalue().encode("utf-8", "surrogateescape")

    def to_bytes(self, value: Any) -> bytes:
        """The cell's text in UTF-8."""
        return str(value).encode("utf-8", "surrogateescape")

    def from_bytes(self, data: bytes) -> str:
        """The cell's text."""
        return data.decode("utf-8", "surrogateescape")

    def _take_header(self, header: list[str]) -> None:
        names = [name.removeprefix(BOM) for name in header]
        for name in self._fields:
            if names.count(name) != 1:
                raise Problem(
                    Exit.USAGE,
                    "usage",
                    f"the header has no column {name}, or several",
                    "--fields takes names of the header line, separated by commas",
                )
            self._columns[name] = names.index(name)
        self._width = len(names)

    def _row(self, number: int, values: list[str]) -> Row:
        if not values:
            return Row(number, values)
        if len(values) != self._width:
            return Row(number, values, problem="it has another number of columns than the header")
        return Row(number, values, {name: values[at] for name, at in self._columns.items()})

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        first = True
        while line := text.readline(LINE_MAX):
            if first and line.endswith("\r\n"):
                self._end = "\r\n"
            first = False
            yield line

    def _next(self, reader: Iterator[list[str]]) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error:
            # What follows a broken quotation cannot be told apart any more.
            raise Problem(
                Exit.USAGE, "malformed", "the file is not CSV: a quotation does not end well"
            ) from None


class JsonLines:
    """One JSON object a line. A field's whole value is encrypted, as its JSON text."""

    nothing = None

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields: Final = fields

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row. Fields that a row has not are left out."""
        number = 0
        while line := source.readline(LINE_MAX + 1):
            number += 1
            if len(line) > LINE_MAX:
                raise Problem(Exit.USAGE, "too_large", f"row {number} is too long")
            yield self._row(number, line)

    def render(self, row: Row, cells: Mapping[str, Any]) -> bytes:
        """The row's line with some cells replaced."""
        if isinstance(row.content, bytes):
            return row.content
        value = {**row.content, **cells}
        try:
            return json.dumps(value, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:
            return json.dumps(value).encode() + b"\n"

    def to_bytes(self, value: Any) -> bytes:
        """The value's JSON text."""
        return json.dumps(value, separators=(",", ":")).encode()

    def from_bytes(self, data: bytes) -> Any:
        """The value."""
        return json.loads(data)

    def _row(self, number: int, line: bytes) -> Row:
        if not line.strip():
            return Row(number, line)
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            return Row(number, line, problem="it is not JSON, or names something twice")
        if not isinstance(value, dict):
            return Row(number, line, problem="it is not a JSON object")
        return Row(number, value, {name: value[name] for name in self._fields if name in value})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found
