"""A journal of an Auditor in a directory, filled and changed by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kcm_auditor.journal.format import (
    Batch,
)
from kcm_auditor.journal.writer import Journal
from kcm_auditor.positions import Book
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, FakeClock, System, event


@asynccontextmanager
async def opened(
    directory: Path, book: Book | None = None, segment_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Journal, Book]]:
    book = book or Book("auditor")
    journal = Journal(directory, FakeClock(), book.positions, segment_bytes)
    journal.open(lambda entry: book.restore(entry.content))
    try:
        yield journal, book
    finally:
        await journal.close()


async def fill(
    directory: Path, system: System, batches: int = 20, segment_bytes: int = 1 << 20
) -> None:
    gw = Emitting(system, "gw")
    async with opened(directory, segment_bytes=segment_bytes) as (journal, book):
        for number in range(batches):
            batch = Batch(region="eu", position=number + 1, statement=gw.signed([event()]))
            book.restore(batch)
            await journal.submit([batch])


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


def change(path: Path, how: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(how(path.read_bytes().splitlines(keepends=True))))


def with_auditor(path: Path) -> System:
    """A region with a Gateway and an Auditor."""
    system = System(path)
    system.add("gw", Role.GATEWAY)
    system.add("auditor", Role.AUDITOR)
    return system
