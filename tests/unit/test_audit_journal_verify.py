"""The journal's verification: tampering shows, and what is gone is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm_auditor.__main__ import main
from kcm_auditor.journal.format import (
    START,
    Batch,
    Head,
    Incident,
    read,
    write,
)
from kcm_auditor.journal.verify import Anchor, verify
from kcm_auditor.journal.writer import Point
from kcm_auditor.positions import Book
from kcm_schemas.auditor import AuditHead
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.audit_rig import Emitting, System, event
from tests.unit.journal_rig import change, fill, opened, segments, with_auditor


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_auditor(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


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
