"""JSON lines: one object per line. The whole value of a field is encrypted, as its text.

The standard library's decoder finds the end of a value. Its result is not used, so that numbers,
escapes and white space stay unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

from kcm.cli.error_report import Problem
from kcm.cli.json_path import Path, parse, refuse_overlaps
from kcm.cli.table_format import BOM, LINE_MAX, Cell, Row, encoded, listed
from kcm.exit_codes import Exit

_SPACE: Final = re.compile(r"[ \t\n\r]*")


class JsonLines:
    """One JSON object per line, in UTF-8."""

    def __init__(self, fields: Sequence[str], bind: Sequence[str]) -> None:
        self._fields: Final = {name: parse(name) for name in fields}
        self._bind: Final = {name: parse(name) for name in bind}
        refuse_overlaps([*self._fields.values(), *self._bind.values()])
        self._known: list[str] = []

    def rows(self, source: BinaryIO) -> Iterator[Row]:
        """Read row after row. A row lists the fields that it lacks."""
        number = 0
        while line := source.readline(LINE_MAX + 1):
            number += 1
            if len(line) > LINE_MAX:
                text = f"row {number} is longer than {LINE_MAX} bytes"
                hint = "check that the file has one JSON object on each line"
                raise Problem(Exit.USAGE, "too_large", text, hint)
            yield self._row(number, line)

    def columns(self) -> str:
        """Return the keys of the first object as a text."""
        return f"the first row has: {listed(self._known)}"

    def record(self, cell: Cell) -> str:
        """Return the cell's string."""
        value = json.loads(cell.value)
        if not isinstance(value, str):
            raise ValueError("not a string")  # noqa: TRY004 - bad data, not a bad argument
        return value

    def sealed(self, cell: Cell, record: str) -> str:
        """Return a string of base64."""
        del cell
        return f'"{record}"'

    def opened(self, cell: Cell, plain: bytes) -> str:
        """Return the text of the value."""
        del cell
        text = plain.decode()
        _, end = _value(text, _skip(text, 0))
        if "\n" in text or _skip(text, end) != len(text):
            raise ValueError("not one value on one line")
        return text

    def nothing(self, cell: Cell) -> str:
        """Return a null."""
        del cell
        return "null"

    def _row(self, number: int, line: bytes) -> Row:
        text = line.decode("utf-8", "surrogateescape")
        try:
            return self._read(number, text)
        except _RowError as error:
            return Row(number, text, problem=str(error))
        except UnicodeEncodeError:
            return Row(number, text, problem="it is not UTF-8")
        except RecursionError:
            return Row(number, text, problem="it is nested too deeply")
        except ValueError:
            return Row(number, text, problem="it is not JSON, or has a key twice")

    def _read(self, number: int, text: str) -> Row:
        text.encode()
        start = _skip(text, len(BOM) if number == 1 and text.startswith(BOM) else 0)
        if start == len(text):
            return Row(number, text)
        if text[start] != "{":
            raise _RowError("it is not a JSON object")
        members, end = _members(text, start)
        if _skip(text, end) != len(text):
            raise _RowError("it has more than one JSON value")
        self._known = self._known or list(members)
        self._refuse_other_readings(number, text, members)
        return self._found(number, text, members)

    def _found(self, number: int, text: str, members: Members) -> Row:
        cells = {name: _find(text, members, path) for name, path in self._fields.items()}
        bound = {name: _find(text, members, path) for name, path in self._bind.items()}
        for name, cell in bound.items():
            if cell is None:
                raise _RowError(f"it has no {name}, which --bind names")
        return Row(
            number,
            text,
            {name: cell for name, cell in cells.items() if cell is not None},
            {name: encoded(cell.value) for name, cell in bound.items() if cell is not None},
            tuple(name for name, cell in cells.items() if cell is None),
        )

    def _refuse_other_readings(self, number: int, text: str, members: Members) -> None:
        """Raise ``Problem`` if a name with a dot could also mean a key with a dot."""
        named = {*self._fields.values(), *self._bind.values()}
        for name, path in (*self._fields.items(), *self._bind.items()):
            if len(path) == 1 or "\\" in name:
                continue
            for reading in _readings(text, members, path):
                if reading in named:
                    continue
                other = ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in reading)
                raise Problem(
                    Exit.USAGE,
                    "usage",
                    f"{name} is ambiguous: row {number} has a key with a dot, written {other}",
                    f"name {other} instead, or both if the rows differ",
                )


Members = dict[str, tuple[int, int]]
"""An object's keys, each with the position of its value."""


class _RowError(Exception):
    """A row is not valid. The text gives the reason."""


def _members(text: str, start: int) -> tuple[Members, int]:
    """Return the members of the object at ``start``, and its end; raises ``ValueError``."""
    found: Members = {}
    at = _skip(text, start + 1)
    if text[at : at + 1] == "}":
        return found, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise ValueError
        key, at = _value(text, at)
        at = _skip(text, at)
        if key in found or text[at : at + 1] != ":":
            raise ValueError
        at = _skip(text, at + 1)
        _, end = _value(text, at)
        found[key] = at, end
        at = _skip(text, end)
        match text[at : at + 1]:
            case ",":
                at = _skip(text, at + 1)
            case "}":
                return found, at + 1
            case _:
                raise ValueError


def _find(text: str, members: Members, path: Path) -> Cell | None:
    """Return the cell at a path, or ``None`` if it is missing."""
    for depth, key in enumerate(path):
        if key not in members:
            return None
        start, end = members[key]
        if depth == len(path) - 1:
            return Cell(start, end, text[start:end])
        if text[start] == "[":
            raise _RowError(f"{'.'.join(path[: depth + 1])} is a list: name the whole list")
        if text[start] != "{":
            return None
        members, _ = _members(text, start)
    return None


def _readings(text: str, members: Members, rest: Path) -> Iterator[Path]:
    """Yield every path to a value whose keys, joined by dots, are the same text."""
    for size in range(1, len(rest) + 1):
        key = ".".join(rest[:size])
        if key not in members:
            continue
        start, _ = members[key]
        if size == len(rest):
            yield (key,)
        elif text[start] == "{":
            inner, _ = _members(text, start)
            yield from ((key, *more) for more in _readings(text, inner, rest[size:]))


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _object(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str)


def _value(text: str, at: int) -> tuple[Any, int]:
    """Return a value and its end; raises ``ValueError``."""
    return _DECODER.raw_decode(text, at)
