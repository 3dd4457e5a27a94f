"""The Auditor's journal: what is submitted is on the disk, in lines of one form."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest
from kcm_auditor.journal.format import (
    START,
    BadLine,
    Entry,
    Incident,
    Passed,
    chain,
    read,
    write,
)
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.verify import verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.positions import Book

from tests.audit_rig import FakeClock, System, until
from tests.unit.journal_rig import change, fill, opened, segments, with_auditor


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_auditor(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


async def test_what_was_submitted_is_there_and_verifies(system: System, directory: Path) -> None:
    await fill(directory, system)
    report = verify(directory, system.verifier)
    assert (report.problems, report.entries, report.events) == ((), 21, 20)
    lines = segments(directory)[0].read_bytes().splitlines()
    assert [json.loads(line)["entry"]["content"]["kind"] for line in lines[:3]] == [
        "positions",
        "batch",
        "batch",
    ]
    assert json.loads(lines[-1])["hash"] == report.head
    assert oct(segments(directory)[0].stat().st_mode & 0o777) == "0o600"


async def test_a_restart_continues_from_the_last_segment(system: System, directory: Path) -> None:
    await fill(directory, system, 30, segment_bytes=4000)
    assert len(segments(directory)) > 3
    book = Book("auditor")
    async with opened(directory, book) as (journal, _):
        assert (book.events, book.region("eu").position) == (30, 30)
        incarnation = book.incarnation("gw", b"b" * 16)
        assert incarnation is not None
        assert incarnation.chain.next_seq == 31
        seq = journal.point.seq
        await journal.submit([Incident(incident="silent", region="eu")])
        assert journal.point.seq == seq + 1
    assert verify(directory, system.verifier).problems == ()


async def test_every_segment_begins_with_everybodys_positions(
    system: System, directory: Path
) -> None:
    await fill(directory, system, 30, segment_bytes=4000)
    for path in segments(directory):
        entry, _ = read(path.read_bytes().splitlines(keepends=True)[0])
        assert entry.content.kind == "positions"
        assert int(path.stem) == entry.seq


@pytest.mark.parametrize("keep", [0, 1, 70, -1])
async def test_a_torn_last_line_is_cut_and_told(system: System, directory: Path, keep: int) -> None:
    await fill(directory, system)
    path = segments(directory)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[-1][:keep]
    path.write_bytes(b"".join(lines[:-1]) + torn)
    assert verify(directory).sound == (not torn)
    book = Book("auditor")
    journal = Journal(directory, FakeClock(), book.positions)
    cuts = journal.open(lambda entry: book.restore(entry.content))
    assert [cut.size for cut in cuts] == ([len(torn)] if torn else [])
    assert book.events == 19
    await journal.close()
    assert verify(directory, system.verifier).problems == ()


async def test_a_segment_that_was_only_begun_is_begun_again(
    system: System, directory: Path
) -> None:
    await fill(directory, system, 10)
    last, _ = read(segments(directory)[-1].read_bytes().splitlines(keepends=True)[-1])
    for torn in (b"", b'{"hash":"00'):
        (directory / f"{last.seq + 1:020d}.jsonl").write_bytes(torn)
        async with opened(directory) as (journal, book):
            assert (journal.point.seq, book.events) == (last.seq, 10)
        assert len(segments(directory)) == 1


async def test_damage_is_not_repaired(system: System, directory: Path) -> None:
    await fill(directory, system)
    change(segments(directory)[-1], lambda lines: [*lines[:5], *lines[6:]])
    with pytest.raises(JournalError, match="does not follow"):
        async with opened(directory):
            pass


async def test_a_missing_segment_stops_the_start(system: System, directory: Path) -> None:
    await fill(directory, system, 30, segment_bytes=4000)
    segments(directory)[-2].unlink()
    with pytest.raises(JournalError, match="does not follow entry 30 of the segment before"):
        async with opened(directory):
            pass


async def test_one_writer(directory: Path) -> None:
    async with opened(directory):
        with pytest.raises(JournalError, match="another Auditor"):
            async with opened(directory):
                pass


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_disk_that_fails_ends_the_journal(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with opened(directory) as (journal, _):
        await journal.submit([])
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{call}", full)
            with pytest.raises(JournalError):
                await journal.submit([Incident(incident="silent", region="eu")])
        assert journal.failed.is_set()
        with pytest.raises(JournalError):
            journal.submit([])


async def test_entries_of_one_moment_share_a_flush_and_keep_their_order(directory: Path) -> None:
    async with opened(directory) as (journal, _):
        futures = [
            journal.submit([Incident(incident="silent", region="eu", first=n)]) for n in range(50)
        ]
        futures[7].cancel()
        await asyncio.gather(*futures[8:])
    lines = segments(directory)[0].read_bytes().splitlines(keepends=True)
    found = [read(line)[0].content for line in lines[1:]]
    assert [content.first for content in found if isinstance(content, Incident)] == list(range(50))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b'{"hash":"' + b"0" * 64 + b'","entry":{}}\n',
        b'{"hash":"' + b"z" * 64 + b'","entry":[[[[]]]]}\n',
    ],
)
def test_lines_that_are_none(line: bytes) -> None:
    with pytest.raises(BadLine):
        read(line)


def test_a_line_of_before_messages_were_compared_is_read() -> None:
    passed = Passed(region="eu", position=1, digest=b"d" * 32, mark=0, mark_digest=b"")
    entry = Entry(seq=1, previous=START.hex(), time_ms=1, content=passed)
    line, _ = write(entry)
    assert b'"message"' not in line
    assert read(line)[0] == entry
    more = entry.model_copy(update={"content": passed.model_copy(update={"message": b"m" * 32})})
    assert read(write(more)[0])[0] == more
    # Nothing is said in one way only: it is left out.
    raw = (
        entry.model_dump_json()
        .encode()
        .replace(b'"mark_digest":""', b'"mark_digest":"","message":""')
    )
    digest = chain(START, raw)
    with pytest.raises(BadLine, match="canonical encoding"):
        read(b'{"hash":"' + digest.hex().encode() + b'","entry":' + raw + b"}\n")


def test_a_line_has_one_form() -> None:
    entry = Entry(
        seq=1, previous=START.hex(), time_ms=2, content=Incident(incident="gap", digest=b"\xff\xfe")
    )
    line, digest = write(entry)
    assert read(line) == (entry, digest)
    raw = line[len(b'{"hash":""') + 64 + len(b',"entry":') : -2]
    for old, new in ((b'"seq":1', b'"seq":1.0'), (b'":', b'": '), (b"{", b'{"seq":9,')):
        other = raw.replace(old, new, 1)
        hashed = chain(START, other).hex().encode()
        with pytest.raises(BadLine, match="canonical encoding"):
            read(b'{"hash":"' + hashed + b'","entry":' + other + b"}\n")


async def test_closing_waits_for_what_was_submitted(directory: Path) -> None:
    book = Book("auditor")
    journal = Journal(directory, FakeClock(), book.positions)
    journal.open(lambda entry: None)
    future = journal.submit([Incident(incident="silent", region="eu")])
    await journal.close()
    assert future.done()
    await until(future.done)
    assert verify(directory).entries == 2
