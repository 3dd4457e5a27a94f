"""Chosen columns of a table: each cell a record of its own, in base64; the rest stays as it is.

A partly bad table is worked through: each bad cell is reported, the good ones go on. What must
never happen is a plaintext in an encrypted table, so a cell that could not be encrypted is left
empty, a row that is not understood is left out, and a field that no row has ends the command before
anything is seen of it. The other way round nothing is lost: what could not be decrypted stays as it
was.

A refusal that concerns the tenant, or the caller, and not a cell ends the command: nothing would
come of the rest.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Literal

from kcm_schemas import limits, record
from kcm_schemas.codes import RETRYABLE, Code, KcmError

from kcm._internal.batches import PAYLOAD_MAX, BatchResult
from kcm._internal.context_binding import cell_context
from kcm.cli.column_options import Columns
from kcm.cli.error_report import Problem
from kcm.cli.files import DEADLINE_S, Target
from kcm.cli.output_file import Sink
from kcm.cli.progress import Advance
from kcm.cli.row_buffer import Held
from kcm.cli.table_format import BASE64_START, Cell, Row, TableFormat, encoded
from kcm.errors import ServiceError, error_for
from kcm.exit_codes import Exit

BATCH_CELLS: Final = limits.RECORDS_MAX
"""Cells worked on at once: one message."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Characters of rows worked on at once: bounds the memory that a table takes."""

OF_A_CELL: Final = {
    "encrypt": {Code.TOO_LARGE},
    "decrypt": set(Code)
    - RETRYABLE
    - {Code.TENANT_KILLED, Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE, Code.INTERNAL},
}
"""Codes that say something about one cell: the first other one ends the command."""

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

    lacking: dict[str, int]
    """How many rows do not have a field, by field."""
    rows: int = 0
    """Rows that were understood, empty ones and a header not counted."""
    twice: Counter[str] = field(default_factory=Counter)
    """Cells that were records already and are encrypted again, by field."""
    good: int = 0
    bad: int = 0
    why: BadCell | None = None
    """The last bad cell or row."""
    refused: ServiceError | None = None
    """The last refusal of a cell by the service."""

    def take(self, row: Row) -> None:
        """Count a row and its fields."""
        if row.cells or row.lacking:
            self.rows += 1
        for name in row.lacking:
            self.lacking[name] += 1

    @property
    def unseen(self) -> list[str]:
        """Fields that no row has had so far."""
        return [name for name, rows in self.lacking.items() if rows == self.rows]

    def end(self, table: TableFormat) -> None:
        """Raise when a field was in no row, or when nothing was good."""
        if self.rows and self.unseen:
            raise unseen(self.unseen, table)
        if self.good or self.why is None:
            return
        if self.refused is not None:
            raise self.refused
        text = f"nothing of the table was good; row {self.why.row}: {self.why.detail}"
        raise Problem(Exit.USAGE, self.why.code, text, "is it the right file, and --as?")


@dataclass(slots=True)
class _Work:
    row: Row
    field: str
    cell: Cell
    payload: bytes = b""
    text: str = ""
    """What is written in the cell's place, if it is good."""
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

    Raises ``ServiceError`` when nothing good came of it, or nothing more can, and ``Problem`` when
    no row has one of the fields; nothing was seen of the output then.
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
            raise unseen(tally.unseen, table, "name a file with -o FILE: it waits to the end")
        advance(sum(_size(row) for row in batch))
    tally.end(table)
    held.release()
    return tally


def unseen(fields: list[str], table: TableFormat, hint: str = "") -> Problem:
    """No row has these fields."""
    text = f"no row has the field {' or '.join(fields)}; {table.columns()}"
    hint = hint or "a key inside of an object is named user.name; is --fields right?"
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
    ask: Any = target.client.encrypt if operation == "encrypt" else target.client.decrypt
    result: BatchResult = await ask(
        target.tenant,
        target.service,
        [work.payload for work in asked],
        [cell_context(work.field, target.context, work.row.bound) for work in asked],
        deadline_s=DEADLINE_S,
    )
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
