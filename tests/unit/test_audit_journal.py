from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kcm_auditor.__main__ import main
from kcm_auditor.journal.format import (
    START,
    BadLine,
    Batch,
    Entry,
    Head,
    Incident,
    Passed,
    chain,
    read,
    write,
)
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.verify import Anchor, verify
from kcm_auditor.journal.writer import Journal, Point
from kcm_auditor.positions import Book
from kcm_schemas.auditor import AuditHead
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.audit_rig import Emitting, FakeClock, System, event, until


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    system.add("auditor", Role.AUDITOR)
    return system


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


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


Tamper = Callable[[list[bytes]], list[bytes]]


def flip(lines: list[bytes]) -> list[bytes]:
    at = len(lines[7]) // 2
    lines[7] = lines[7][:at] + bytes([lines[7][at] ^ 1]) + lines[7][at + 1 :]
    return lines


def rehash(lines: list[bytes]) -> list[bytes]:
    """Somebody who knows how hashes are made changes an entry and its own hash."""
    entry, _ = read(lines[7])
    lines[7], _ = write(entry.model_copy(update={"time_ms": 1}))
    return lines


@pytest.mark.parametrize(
    "tamper",
    [
        flip,
        rehash,
        lambda lines: [*lines[:7], *lines[8:]],
        lambda lines: [*lines[:7], lines[8], lines[7], *lines[9:]],
        lambda lines: [*lines[:7], lines[7], lines[7], *lines[8:]],
        lambda lines: [*lines[:7], lines[7].replace(b'"entry":{', b'"entry": {'), *lines[8:]],
        lambda lines: [*lines[:-1], lines[-1][:-9]],
        lambda lines: [*lines, b"\n"],
        lambda _: [b"x" * (5 << 20)],
        lambda _: [],
    ],
)
async def test_tampering_shows(system: System, directory: Path, tamper: Tamper) -> None:
    await fill(directory, system)
    assert verify(directory).sound
    change(segments(directory)[0], tamper)
    assert not verify(directory).sound


async def test_a_segment_cut_at_a_line_shows_unless_it_is_the_end(
    system: System, directory: Path
) -> None:
    await fill(directory, system, 33, segment_bytes=4000)
    before = verify(directory)
    anchor = Anchor(before.entries, bytes.fromhex(before.head))
    assert verify(directory, anchor=anchor).sound
    first, *_, last = segments(directory)
    content = last.read_bytes()
    change(last, lambda lines: lines[:-1])
    # Nothing inside says that the end is missing; a head that was kept elsewhere does.
    assert verify(directory).sound
    assert not verify(directory, anchor=anchor).sound
    last.write_bytes(content)
    change(first, lambda lines: lines[:-1])
    assert not verify(directory).sound


async def test_a_whole_segment_that_is_missing_shows(system: System, directory: Path) -> None:
    await fill(directory, system, 30, segment_bytes=4000)
    segments(directory)[1].unlink()
    assert not verify(directory).sound


async def test_a_journal_written_anew_shows_by_its_signatures(
    system: System, directory: Path, tmp_path: Path
) -> None:
    other = System(tmp_path / "other")
    other.directory.mkdir()
    other.add("gw", Role.GATEWAY)
    await fill(directory, other)
    assert verify(directory).sound
    assert not verify(directory, system.verifier).sound


async def test_a_false_head_shows(system: System, directory: Path) -> None:
    await fill(directory, system, 3)

    def head(point: Point) -> Head:
        body = AuditHead(auditor="auditor", seq=point.seq, head=point.head, time_ms=1)
        return Head(statement=encode(system.identities["auditor"].sign(Kind.AUDIT_HEAD, body)))

    async with opened(directory) as (journal, _):
        await journal.submit([head(journal.point)])
        await journal.submit([head(journal.point)])
    assert verify(directory, system.verifier).sound
    async with opened(directory) as (journal, _):
        await journal.submit([head(Point(journal.point.seq, START))])
    assert not verify(directory, system.verifier).sound
    assert not verify(directory).sound


async def test_positions_that_do_not_follow_show(system: System, directory: Path) -> None:
    await fill(directory, system, 3)
    book = Book("auditor")
    async with opened(directory, book, segment_bytes=1) as (journal, _):
        book.events += 1
        await journal.submit([Incident(incident="silent", region="eu")])
    report = verify(directory)
    assert any("positions" in problem for problem in report.problems)


def test_verify_says_what_is_no_journal(tmp_path: Path) -> None:
    assert not verify(tmp_path).sound
    (tmp_path / "notes.jsonl").write_text("{}\n")
    assert not verify(tmp_path).sound


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


async def record(directory: Path, system: System, *said: Batch | Incident) -> None:
    async with opened(directory) as (journal, book):
        for content in said:
            book.restore(content)
            await journal.submit([content])


def batches(system: System, count: int) -> list[Batch]:
    gw = Emitting(system, "gw")
    return [
        Batch(region="eu", position=n + 1, statement=gw.signed([event(), event()]))
        for n in range(count)
    ]


def gap(first: int, last: int) -> Incident:
    return Incident(
        incident="gap", region="eu", emitter="gw", incarnation=b"b" * 16, first=first, last=last
    )


async def test_verify_says_exactly_which_events_are_gone(system: System, directory: Path) -> None:
    one, _, three, _, five = batches(system, 5)
    await record(directory, system, one, gap(3, 4), three, gap(7, 8), five)
    report = verify(directory, system.verifier)
    assert report.sound
    assert [(one.emitter, one.incarnation, one.first, one.last) for one in report.gone] == [
        ("gw", b"b" * 16, 3, 4),
        ("gw", b"b" * 16, 7, 8),
    ]
    assert report.gone_events == 4
    assert str(report.gone[0]) == (
        f"gw, incarnation {(b'b' * 16).hex()}: events 3 to 4, signed, and lost in transit"
    )


async def test_a_hole_that_no_incident_names_is_a_problem(system: System, directory: Path) -> None:
    one, _, three, *_ = batches(system, 3)
    await record(directory, system, one, gap(3, 3), three)
    (problem,) = verify(directory, system.verifier).problems
    assert "no incident names the missing events: gw, incarnation" in problem


async def test_what_is_gone_is_said_as_json_and_in_text(
    system: System,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, _, three = batches(system, 3)
    await record(directory, system, one, gap(3, 4), three)
    arguments = ["kcm_auditor", "--verify", str(directory)]
    monkeypatch.setattr("sys.argv", [*arguments, "--json"])
    assert main() == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gone_events"] == 2
    assert said["gone"] == [
        {"emitter": "gw", "incarnation": (b"b" * 16).hex(), "first": 3, "last": 4, "dropped": False}
    ]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    assert "GONE       gw, incarnation" in capsys.readouterr().out
