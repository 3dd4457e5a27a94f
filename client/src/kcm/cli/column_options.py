"""The options of ``kcm encrypt`` and ``kcm decrypt`` for columns and table formats."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, TypeVar

import click

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm.cli.table_format import TableFormat

F = TypeVar("F", bound=Callable[..., object])

FORMATS: Final = {
    "csv": ("csv", ","),
    ".csv": ("csv", ","),
    "tsv": ("csv", "\t"),
    ".tsv": ("csv", "\t"),
    ".tab": ("csv", "\t"),
    "jsonl": ("jsonl", ""),
    ".jsonl": ("jsonl", ""),
    ".ndjson": ("jsonl", ""),
}
"""Format and default delimiter of a table, by the value of --as or the suffix of the file."""


BASE64: Final = re.compile(r"[A-Za-z0-9+/=]")
"""The alphabet of encrypted cells."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The chosen columns, and the format of the table."""

    fields: tuple[str, ...]
    table: TableFormat


@dataclass(frozen=True, slots=True)
class Given:
    """The values of the options."""

    fields: str | None
    bind: str | None
    delimiter: str | None
    table_format: str | None

    def columns(self, file: str) -> Columns | None:
        """Return the chosen columns, or ``None`` for a whole file. Raises ``Problem``."""
        if self.fields is None:
            for option, value in (
                ("--bind", self.bind),
                ("--delimiter", self.delimiter),
                ("--as", self.table_format),
            ):
                if value is not None:
                    raise _wrong(
                        f"{option} needs --fields: without it the file is not a table",
                        f"name the columns with --fields, or leave out {option}",
                    )
            return None
        fields = _names("--fields", self.fields)
        bind = () if self.bind is None else _names("--bind", self.bind)
        both = sorted(set(fields) & set(bind))
        if both:
            raise _wrong(
                f"--bind and --fields both name {both[0]}: bound columns stay in clear",
                "name it with one of the two",
            )
        return Columns(fields, self._table(file, fields, bind))

    def _table(self, file: str, fields: tuple[str, ...], bind: tuple[str, ...]) -> TableFormat:
        from kcm.cli.csv_format import Delimited
        from kcm.cli.jsonl_format import JsonLines

        kind, usual = FORMATS.get(self.table_format or PurePath(file).suffix.lower(), ("", ""))
        if not kind:
            raise _wrong(
                "the file's name does not show its format", "give --as csv, --as tsv or --as jsonl"
            )
        if kind == "csv":
            return Delimited(fields, bind, _delimiter(self.delimiter, usual))
        if self.delimiter is not None:
            raise _wrong("JSON lines have no --delimiter", "leave it out, or give --as csv")
        return JsonLines(fields, bind)


def column_options(function: F) -> F:
    """Add the options that choose columns to a command."""
    options = (
        click.option(
            "--fields",
            metavar="A,B",
            help="Only these columns of a CSV, TSV or JSONL file (user.name: in an object).",
        ),
        click.option(
            "--bind",
            metavar="A,B",
            help="Columns that identify a row: a cell decrypts only in a row with these values.",
        ),
        click.option(
            "--delimiter",
            metavar="CHARACTER",
            help="The separator of cells [default: a comma; a tab in TSV].",
        ),
        click.option(
            "--as",
            "table_format",
            type=click.Choice(["csv", "tsv", "jsonl"]),
            help="The table's format [default: by the file's name].",
        ),
    )
    return functools.reduce(lambda done, option: option(done), reversed(options), function)


def _names(option: str, text: str) -> tuple[str, ...]:
    from kcm._internal.context_binding import FIELD_MAX

    try:
        rows = list(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error:
        rows = []
    names = tuple(name for row in rows for name in row)
    if not names or "" in names or len(set(names)) != len(names):
        raise _wrong(
            f"{option} takes different names, separated by commas",
            "put a name with a comma in quotation marks",
        )
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise _wrong(f"a name in {option} is not UTF-8", "give it in UTF-8") from None
        if size > FIELD_MAX:
            raise _wrong(
                f"a name in {option} has {size} bytes; the maximum is {FIELD_MAX}",
                "rename the column, or choose other ones",
            )
    return names


def _delimiter(given: str | None, usual: str) -> str:
    if given is None:
        return usual
    delimiter = "\t" if given == "\\t" else given
    if len(delimiter) != 1 or delimiter in '"\r\n\0' or BASE64.fullmatch(delimiter):
        raise _wrong(
            "--delimiter is one character: not a quotation mark, a line end or one of base64",
            "for a tab give --delimiter '\\t', or --as tsv",
        )
    return delimiter


def _wrong(text: str, hint: str) -> Problem:
    return Problem(Exit.USAGE, "usage", text, hint)
