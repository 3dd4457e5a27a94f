"""``kcm inspect``: the header of a record. No key, no network, no verification."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from kcm.cli.error_report import Problem
from kcm.cli.input_file import INPUT, source
from kcm.cli.output import emit
from kcm.cli.settings import Settings, common
from kcm.cli.table_format import BASE64_START, LINE_MAX
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.record import Header

CELL_MAX: Final = 2 * 1024 * 1024
"""Bytes read of a record: more than the longest one, also in base64."""

AGAIN: Final = "it is damaged: get it again from where it came"
"""The hint for a file or cell that does not have the form of its beginning."""

CELL: Final = re.compile(rb"(?<![A-Za-z0-9+/])" + BASE64_START.encode() + rb"[A-Za-z0-9+/]+={0,2}")
"""A possible encrypted cell in a row of a table."""


@click.command()
@click.argument("file", metavar="FILE", type=INPUT)
@common
def inspect(settings: Settings, file: str) -> None:
    """Show the header of an encrypted FILE.

    FILE is an output of `kcm encrypt`, a record, or one cell of a table; - is stdin. In a table,
    the encrypted cells are counted.

    The header is not secret and not verified. Only decryption verifies it.
    """
    from kcm_schemas import record

    from kcm._internal import file_format

    with source(file) as reading:
        start = reading.read(len(file_format.MAGIC))
        if start == file_format.MAGIC:
            rows = _file(reading, start)
        elif start == record.MAGIC:
            rows = [_record(start + reading.read(CELL_MAX), "record")]
        elif start.startswith(BASE64_START.encode()):
            rows = [_record(_from_base64(start + reading.read(CELL_MAX)), "cell")]
        else:
            rows = _cells(reading, start)
            if not rows:
                text = f"{file} is not an encrypted file, a record or a table with encrypted cells"
                hint = "`kcm encrypt` writes such files"
                raise Problem(Exit.CHECK_FAILED, "malformed", text, hint)
            columns = ("cells", "region", "tenant", "service", "l3_version")
            emit(settings, rows, columns, [[row[name] for name in columns] for row in rows])
            return
    emit(
        settings,
        rows,
        ("property", "value"),
        [(name, value) for row in rows for name, value in row.items()],
    )


def _file(reading: BinaryIO, start: bytes) -> list[dict[str, Any]]:
    from kcm._internal import file_format

    file_id = file_format.read_header(reading, start)
    pieces = size = 0
    first: dict[str, Any] = {}
    for piece in file_format.records(reading):
        header = _parse(piece.data)
        said = _said(header)
        if first and {**said, "index": 0, "wrapped_key": b""} != {
            **first,
            "index": 0,
            "wrapped_key": b"",
        }:
            text = f"piece {piece.index + 1} has another region, tenant, service or version"
            raise Problem(Exit.CHECK_FAILED, "broken_file", text, AGAIN)
        first = first or said
        pieces += 1
        size += _payload(header, piece.data)
    return [{"kind": "file", "file_id": file_id.hex(), "pieces": pieces, "bytes": size, **first}]


def _cells(reading: BinaryIO, start: bytes) -> list[dict[str, Any]]:
    """Count the cells of a table that are records, by their headers."""
    found: Counter[tuple[object, ...]] = Counter()
    names = ("region", "tenant", "service", "l3_version")
    while line := start + reading.readline(LINE_MAX):
        start = b""
        for cell in CELL.findall(line):
            try:
                said = _said(_parse(_from_base64(cell)))
            except Problem:
                continue
            found[tuple(said[name] for name in names)] += 1
    return [
        {"kind": "cells", "cells": count, **dict(zip(names, said, strict=True))}
        for said, count in sorted(found.items(), key=repr)
    ]


def _record(data: bytes, kind: str) -> dict[str, Any]:
    header = _parse(data)
    return {"kind": kind, "bytes": _payload(header, data), **_said(header)}


def _said(header: Header) -> dict[str, Any]:
    return {
        "suite": 1,
        "region": header.region,
        "tenant": header.tenant,
        "service": header.service,
        "l3_version": header.l3_version,
        "index": header.index,
        "wrapped_key": header.wrapped.hex(),
    }


def _payload(header: Header, data: bytes) -> int:
    from kcm_schemas import limits

    return len(data) - len(header.raw) - limits.TAG_SIZE


def _parse(data: bytes) -> Header:
    from kcm_schemas import record
    from kcm_schemas.codes import KcmError

    try:
        return record.parse(data)
    except KcmError as error:
        raise Problem(Exit.CHECK_FAILED, error.code.value, error.detail, AGAIN) from None


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise Problem(Exit.CHECK_FAILED, "malformed", "the cell is not base64", AGAIN) from None
