"""Chosen columns of a table: each cell a record of its own, in base64; the rest stays as it is.

A partly bad table is worked through: each bad cell is reported, the good ones go on. What must
never happen is a plaintext in an encrypted table, so a cell that could not be encrypted is left
empty, and a row that is not understood is left out. The other way round nothing is lost: what could
not be decrypted stays as it was.

A refusal that concerns the tenant and not a cell ends the command: nothing would come of the rest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from kcm_schemas import limits
from kcm_schemas.codes import RETRYABLE, Code

from kcm.batches import PAYLOAD_MAX, BatchResult
from kcm.binding import cell_context
from kcm.cli.files import DEADLINE_S, Target
from kcm.cli.progress import Advance
from kcm.cli.tables import Row, TableFormat
from kcm.errors import ServiceError, error_for

BATCH_CELLS: Final = limits.RECORDS_MAX
"""Cells worked on at once: one message."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of cells worked on at once: bounds the memory that a table takes."""

WHOLE: Final = RETRYABLE | {
    Code.TENANT_KILLED,
    Code.UNKNOWN_TENANT,
    Code.UNKNOWN_SERVICE,
    Code.INTERNAL,
}
"""Codes that say nothing about one cell: the first of them ends the command."""

Operation = Literal["encrypt", "decrypt"]


@dataclass(frozen=True, slots=True)
class BadCell:
    """A cell that failed, or a row that was not understood (then ``field`` is empty)."""

    row: int
    field: str
    code: str
    detail: str


@dataclass(slots=True)
class Tally:
    """What came of a table."""

    good: int = 0
    bad: int = 0
    last: ServiceError | None = None
    """Why the last bad cell was refused."""


@dataclass(slots=True)
class _Cell:
    row: Row
    field: str
    payload: bytes
    result: Any = None
    bad: BadCell | None = None


async def work_table(
    target: Target,
    operation: Operation,
    table: TableFormat,
    source: BinaryIO,
    sink: BinaryIO,
    advance: Advance,
    report: Callable[[BadCell], None],
) -> Tally:
    """Encrypt or decrypt the chosen columns; ``report`` gets each ``BadCell``.

    Raises ``ServiceError`` when nothing good came of it, or nothing more can.
    """
    tally = Tally()
    for batch in _batches(table.rows(source)):
        cells = [
            _take(operation, table, row, name, value)
            for row in batch
            for name, value in row.cells.items()
        ]
        await _ask(target, operation, table, cells, tally)
        _write(operation, table, sink, batch, cells, tally, report)
        advance(sum(_size(row) for row in batch))
    if tally.bad and not tally.good and tally.last is not None:
        raise tally.last
    return tally


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    cells = size = 0
    for row in rows:
        batch.append(row)
        cells += len(row.cells)
        size += _size(row)
        if cells >= BATCH_CELLS or size >= BATCH_BYTES:
            yield batch
            batch, cells, size = [], 0, 0
    if batch:
        yield batch


def _size(row: Row) -> int:
    values = row.content if isinstance(row.content, list) else row.cells.values()
    return sum(len(value) for value in values if isinstance(value, str)) + 16


def _take(operation: Operation, table: TableFormat, row: Row, name: str, value: Any) -> _Cell:
    if operation == "encrypt":
        payload = table.to_bytes(value)
        cell = _Cell(row, name, payload)
        if len(payload) > PAYLOAD_MAX:
            cell.bad = _bad(cell, error_for(Code.TOO_LARGE))
        return cell
    cell = _Cell(row, name, b"")
    try:
        cell.payload = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        cell.bad = _bad(cell, error_for(Code.MALFORMED, "the cell is not a record in base64"))
    return cell


async def _ask(
    target: Target, operation: Operation, table: TableFormat, cells: list[_Cell], tally: Tally
) -> None:
    asked = [cell for cell in cells if cell.bad is None]
    ask = target.client.encrypt if operation == "encrypt" else target.client.decrypt
    result: BatchResult = await ask(
        target.tenant,
        target.service,
        [cell.payload for cell in asked],
        [cell_context(cell.field, target.context) for cell in asked],
        deadline_s=DEADLINE_S,
    )
    for index, cell in enumerate(asked):
        error = result.error(index)
        if error is None:
            _give(operation, table, cell, result.one(index))
            continue
        if error.code in WHOLE:
            raise error
        tally.last = error
        cell.bad = _bad(cell, error)


def _give(operation: Operation, table: TableFormat, cell: _Cell, value: bytes) -> None:
    if operation == "encrypt":
        cell.result = base64.b64encode(value).decode()
        return
    try:
        cell.result = table.from_bytes(value)
    except ValueError:
        detail = "the plaintext is not a value of this format"
        cell.bad = _bad(cell, error_for(Code.MALFORMED, detail))


def _write(
    operation: Operation,
    table: TableFormat,
    sink: BinaryIO,
    batch: list[Row],
    cells: list[_Cell],
    tally: Tally,
    report: Callable[[BadCell], None],
) -> None:
    by_row: dict[int, list[_Cell]] = {}
    for cell in cells:
        by_row.setdefault(cell.row.number, []).append(cell)
    for row in batch:
        if row.problem:
            tally.bad += 1
            report(BadCell(row.number, "", Code.MALFORMED.value, row.problem))
            if operation == "encrypt":
                continue
        changed = {}
        for cell in by_row.get(row.number, []):
            if cell.bad is None:
                tally.good += 1
                changed[cell.field] = cell.result
                continue
            tally.bad += 1
            report(cell.bad)
            if operation == "encrypt":
                changed[cell.field] = table.nothing
        sink.write(table.render(row, changed))


def _bad(cell: _Cell, error: ServiceError) -> BadCell:
    return BadCell(cell.row.number, cell.field, error.code.value, error.detail)
