"""Chosen columns of a table: each cell becomes one record in base64; the rest stays unchanged.

A bad cell is reported and does not affect the others. An encrypted table must never contain a
plaintext of a chosen column. So a cell that cannot be encrypted is left empty, a row that cannot be
parsed is omitted, and a field that no row has ends the command before any output. In the other
direction no data is lost: a cell that cannot be decrypted stays as it is.

A refusal about the tenant or the caller, not about a cell, ends the command, because all further
cells would fail, too.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Literal

from kcm_schemas import limits, record
from kcm_schemas.codes import RETRYABLE, Code, KcmError

from kcm._internal.batches import PAYLOAD_MAX
from kcm._internal.context_binding import cell_context
from kcm.cli.column_options import Columns
from kcm.cli.error_report import Problem
from kcm.cli.files import Target
from kcm.cli.output_file import Sink
from kcm.cli.progress import Advance
from kcm.cli.row_buffer import Held
from kcm.cli.table_format import BASE64_START, Cell, Row, TableFormat, encoded
from kcm.errors import ServiceError, error_for
from kcm.exit_codes import Exit

BATCH_CELLS: Final = limits.RECORDS_MAX
"""Cells per batch: one message."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Characters of rows per batch. The limit bounds the memory for a table."""

OF_A_CELL: Final = {
    "encrypt": {Code.TOO_LARGE},
    "decrypt": set(Code)
    - RETRYABLE
    - {Code.TENANT_KILLED, Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE, Code.INTERNAL},
}
"""Codes that concern a single cell. Any other code ends the command."""

Operation = Literal["encrypt", "decrypt"]


@dataclass(frozen=True, slots=True)
class BadCell:
    """A cell that failed, or a row that cannot be parsed (then ``field`` is empty)."""

    row: int
    field: str
    code: str
    detail: str


@dataclass(slots=True)
class Tally:
    """The result of a table."""

    lacking: dict[str, int]
    """By field, the number of rows without it."""
    rows: int = 0
    """Rows that were parsed, without empty ones and a header."""
    twice: Counter[str] = field(default_factory=Counter)
    """By field, the cells that were records already and are encrypted again."""
    good: int = 0
    bad: int = 0
    why: BadCell | None = None
    """The last bad cell or row."""
    refused: ServiceError | None = None
    """The last refusal of a cell by the Gateway."""

    def take(self, row: Row) -> None:
        """Count a row and its fields."""
        if row.cells or row.lacking:
            self.rows += 1
        for name in row.lacking:
            self.lacking[name] += 1

    @property
    def unseen(self) -> list[str]:
        """Fields that no row had so far."""
        return [name for name, rows in self.lacking.items() if rows == self.rows]

    def end(self, table: TableFormat) -> None:
        """Raise if no row had a field, or if no cell succeeded."""
        if self.rows and self.unseen:
            raise unseen(self.unseen, table)
        if self.good or self.why is None:
            return
        if self.refused is not None:
            raise self.refused
        text = f"no cell of the table succeeded; row {self.why.row}: {self.why.detail}"
        raise Problem(Exit.USAGE, self.why.code, text, "check the file, and --as")


@dataclass(slots=True)
class _Work:
    row: Row
    field: str
    cell: Cell
    payload: bytes = b""
    text: str = ""
    """The new text of the cell, if it succeeded."""
    bad: BadCell | None = None

    def fail(self, error: ServiceError) -> None:
        self.bad = BadCell(self.row.number, self.field, error.code.value, error.detail)


async def work_table(
    target: Target,
    operation: Operation,
    columns: Columns,
    source: BinaryIO,
    sink: Sink,
    advance: Advance,
    report: Callable[[BadCell], None],
) -> Tally:
    """Encrypt or decrypt the chosen columns; ``report`` gets each ``BadCell``.

    Raises ``ServiceError`` if no cell succeeded or no further cell can, and ``Problem`` if no row
    has one of the fields; no output was visible then.
    """
    table = columns.table
    tally = Tally(dict.fromkeys(columns.fields, 0))
    held = Held(sink)
    for batch in _batches(table.rows(source)):
        for row in batch:
            tally.take(row)
            if operation == "encrypt":
                tally.twice.update(n for n, cell in row.cells.items() if _is_record(table, cell))
        works = {
            row.number: [_take(operation, table, row, name) for name in row.cells] for row in batch
        }
        await _ask(
            target, operation, table, [one for several in works.values() for one in several], tally
        )
        for row in batch:
            _write(operation, table, held, row, works[row.number], tally, report)
        if tally.rows and not tally.unseen:
            held.release()
        elif held.is_full:
            raise unseen(tally.unseen, table, "name a file with -o FILE: it appears at the end")
        advance(sum(_size(row) for row in batch))
    tally.end(table)
    held.release()
    return tally


def unseen(fields: list[str], table: TableFormat, hint: str = "") -> Problem:
    """Return the error for fields that no row has."""
    text = f"no row has the field {' or '.join(fields)}; {table.columns()}"
    hint = hint or "check --fields; a key in an object is named user.name"
    return Problem(Exit.USAGE, "usage", text, hint)


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
    return len(row.text) + 16


def _take(operation: Operation, table: TableFormat, row: Row, name: str) -> _Work:
    work = _Work(row, name, row.cells[name])
    if operation == "encrypt":
        work.payload = encoded(work.cell.value)
        if len(work.payload) > PAYLOAD_MAX:
            work.fail(error_for(Code.TOO_LARGE))
        return work
    try:
        work.payload = base64.b64decode(table.record(work.cell), validate=True)
    except (binascii.Error, ValueError):
        work.fail(error_for(Code.MALFORMED, "the cell is not a record in base64"))
    return work


def _is_record(table: TableFormat, cell: Cell) -> bool:
    if BASE64_START not in cell.value[: len(BASE64_START) + 1]:
        return False
    try:
        record.parse(base64.b64decode(table.record(cell), validate=True))
    except (KcmError, ValueError):
        return False
    return True


async def _ask(
    target: Target, operation: Operation, table: TableFormat, works: list[_Work], tally: Tally
) -> None:
    asked = [work for work in works if work.bad is None]
    contexts = [cell_context(work.field, target.context, work.row.bound) for work in asked]
    result = await target.ask(operation, [work.payload for work in asked], contexts)
    for index, work in enumerate(asked):
        error = result.error(index)
        if error is None:
            _give(operation, table, work, result.one(index))
            continue
        if error.code not in OF_A_CELL[operation]:
            raise error
        tally.refused = error
        work.fail(error)


def _give(operation: Operation, table: TableFormat, work: _Work, value: bytes) -> None:
    if operation == "encrypt":
        work.text = table.sealed(work.cell, base64.b64encode(value).decode())
        return
    try:
        work.text = table.opened(work.cell, value)
    except (ValueError, RecursionError):
        work.fail(error_for(Code.MALFORMED, "the plaintext is not a value of this format"))


def _write(
    operation: Operation,
    table: TableFormat,
    held: Held,
    row: Row,
    works: list[_Work],
    tally: Tally,
    report: Callable[[BadCell], None],
) -> None:
    if row.problem:
        _count(BadCell(row.number, "", Code.MALFORMED.value, row.problem), tally, report)
        if operation == "encrypt":
            return
    changed = {}
    for work in works:
        if work.bad is None:
            tally.good += 1
            changed[work.field] = work.text
            continue
        _count(work.bad, tally, report)
        if operation == "encrypt":
            changed[work.field] = table.nothing(work.cell)
    held.write(row.render(changed))


def _count(bad: BadCell, tally: Tally, report: Callable[[BadCell], None]) -> None:
    tally.bad += 1
    tally.why = bad
    report(bad)
