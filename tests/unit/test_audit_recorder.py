from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kcm_auditor.arrivals import Arrival
from kcm_auditor.journal.format import Batch, Head, Incident
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.verify import verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.liveness import SILENT_S, Watch
from kcm_auditor.positions import Book
from kcm_auditor.recorder import HEAD_ENTRIES, HEAD_S, Recorder
from kcm_auditor.roster_reload import RosterReload
from kcm_auditor.sink import StreamFacts
from kcm_auditor.tail_buffer import TailBuffer
from kcm_schemas.auditor import TAIL_BYTES_MAX
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, FakeClock, System, event
from tests.unit.journal_rig import with_auditor


@dataclass
class Bench:
    """A recorder over a real journal, with a clock that stands still."""

    system: System
    directory: Path
    clock: FakeClock
    recorder: Recorder
    at: int = 0

    async def give(self, body: bytes, emitter: str = "gw") -> None:
        self.at += 1
        arrival = Arrival("eu", self.at, f"kcm.v1.eu.audit.{emitter}", body)
        await self.recorder.take([arrival])

    async def settle(self) -> None:
        await self.recorder.take([])

    def incidents(self) -> list[str]:
        return [entry.incident for entry in self.recorder.recent.page(256, 0) if entry.incident]


def build(system: System, clock: FakeClock) -> Recorder:
    book = Book("auditor")
    journal = Journal(system.directory / "journal", clock, book.positions)
    trust = RosterReload(system.rosters(), system.write_roster())
    watch = Watch(["eu"], clock.elapsed())
    return Recorder(
        system.instance_context("auditor", b"a" * 16), trust, journal, book, watch, clock
    )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    system = with_auditor(tmp_path)
    clock = FakeClock()
    recorder = build(system, clock)
    recorder.open()
    bench = Bench(system, tmp_path / "journal", clock, recorder)
    await recorder.opened("eu", StreamFacts("created", 0), b"")
    recorder.reachable("eu", up=True)
    yield bench
    await recorder.journal.close()
    assert verify(bench.directory, system.verifier).problems == ()


async def test_silence_stands_in_the_journal(bench: Bench) -> None:
    gw = Emitting(bench.system, "gw")
    await bench.give(gw.signed([event()]))
    bench.clock.now += SILENT_S
    bench.recorder.tick()
    bench.recorder.tick()
    await bench.settle()
    # The Auditor's own stream was not heard either.
    assert bench.incidents() == ["silent", "silent"]
    await bench.give(gw.signed([event()]))
    assert bench.incidents() == ["silent", "silent", "heard"]


async def test_heads_come_with_entries_or_with_time(bench: Bench) -> None:
    gw = Emitting(bench.system, "gw")
    journal = bench.recorder.journal

    def heads() -> int:
        return sum(
            b'"kind":"head"' in path.read_bytes() for path in bench.directory.glob("*.jsonl")
        )

    bench.recorder.tick()
    await bench.settle()
    assert heads() == 0
    bench.clock.now += HEAD_S / 2
    await bench.give(gw.signed([event()]))
    bench.recorder.tick()
    await bench.settle()
    assert heads() == 0
    bench.clock.now += HEAD_S / 2
    bench.recorder.tick()
    await bench.settle()
    assert heads() == 1
    seq = journal.point.seq
    bench.clock.now += 10
    bench.recorder.tick()
    assert journal.point.seq == seq
    for _ in range(HEAD_ENTRIES):
        await bench.give(gw.signed([event()]))
    bench.recorder.tick()
    # Each batch here came alone, and so the chain's place was written behind each.
    assert journal.point.seq == seq + 2 * HEAD_ENTRIES + 1


async def test_a_recorder_goes_on_where_another_ended(bench: Bench) -> None:
    gw = Emitting(bench.system, "gw")
    await bench.give(gw.signed([event()]))
    await bench.recorder.journal.close()
    bench.recorder = build(bench.system, bench.clock)
    bench.recorder.open()
    assert bench.recorder.position("eu") == 1
    gw.signed([event()])
    await bench.give(gw.signed([event()]))
    assert bench.incidents() == ["gap"]
    assert bench.recorder.ledger.book.events == 2


async def test_what_looks_forged_is_tried_with_a_newer_roster(bench: Bench) -> None:
    bench.system.add("new", Role.GATEWAY)
    body = Emitting(bench.system, "new").signed([event()])
    await bench.give(body, "new")
    assert bench.incidents() == ["untrusted"]
    bench.system.version += 1
    bench.system.write_roster()
    await bench.give(body, "new")
    assert bench.recorder.ledger.book.events == 1


async def test_what_was_refused_is_the_same_when_its_signer_is_known(bench: Bench) -> None:
    bench.system.identity("late")
    body = Emitting(bench.system, "late").signed([event()])
    await bench.give(body, "late")
    assert bench.incidents() == ["untrusted"]
    bench.system.add("late", Role.GATEWAY)
    bench.system.version += 1
    bench.system.write_roster()
    last = Arrival("eu", bench.at, "kcm.v1.eu.audit.late", body)
    assert bench.recorder.recorded(last)
    await bench.recorder.journal.close()
    again = build(bench.system, bench.clock)
    again.open()
    assert again.recorded(last)
    assert not again.recorded(Arrival("eu", bench.at, "kcm.v1.eu.audit.late", b"garbage"))
    await again.journal.close()


async def test_where_the_last_message_is_not_known_its_events_are_compared(bench: Bench) -> None:
    gw = Emitting(bench.system, "gw")
    body = gw.signed([event()])
    await bench.give(body)
    bench.recorder.ledger.book.region("eu").messages.clear()
    subject = "kcm.v1.eu.audit.gw"
    assert bench.recorder.recorded(Arrival("eu", 1, subject, body))
    assert bench.recorder.recorded(Arrival("eu", 1, subject, b"garbage"))
    assert not bench.recorder.recorded(Arrival("eu", 1, subject, gw.signed([event()])))


async def test_a_roster_that_is_not_accepted_changes_nothing(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    rosters = system.rosters()
    trust = RosterReload(rosters, system.write_roster())
    known = trust.verifier
    assert not trust.refresh()
    system.roster_path.write_bytes(b"signed by nobody")
    assert not trust.refresh()
    assert trust.verifier is known


async def test_a_roster_that_could_not_be_read_once_is_read_again(tmp_path: Path) -> None:
    """Its file does not change any more, and the fault has passed."""
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    trust = RosterReload(system.rosters(), system.write_roster())
    known = trust.verifier
    system.roster_path.unlink()
    system.roster_path.mkdir()  # it cannot be read for a moment
    assert not trust.refresh()
    system.roster_path.rmdir()
    system.version += 1
    system.add("gw-2", Role.GATEWAY)
    system.write_roster()
    assert [trust.refresh() for _ in range(2)] == [True, False]
    assert trust.verifier is not known


async def test_a_batch_in_the_journal_that_is_none_stops_the_start(bench: Bench) -> None:
    await bench.recorder.journal.submit([Batch(region="eu", position=1, statement=b"none")])
    await bench.recorder.journal.close()
    recorder = build(bench.system, bench.clock)
    with pytest.raises(JournalError, match="verify"):
        recorder.open()
    await recorder.journal.close()
    # What the fixture verifies at its end is a sound journal.
    for path in bench.directory.glob("*.jsonl"):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))


def test_recent_entries_are_bounded_in_bytes_and_in_pages() -> None:
    recent = TailBuffer(bytes_max=2_000_000)
    for seq in range(1, 100):
        recent.add(seq, 0, Batch(region="eu", position=seq, statement=bytes(100_000)))
        recent.add(seq, 0, Head(statement=b""))
    assert recent.oldest == 81
    page = recent.page(256, 0)
    assert sum(len(entry.statement) for entry in page) <= TAIL_BYTES_MAX
    assert page[-1].seq == 99
    assert [entry.seq for entry in recent.page(2, 90)] == [88, 89]
    assert recent.page(5, 81) == []
    assert TailBuffer().page(5, 0) == []
    assert TailBuffer().oldest == 0
    one = TailBuffer()
    one.add(1, 0, Incident(incident="gap", emitter="gw", incarnation=b"\x01", first=2, last=3))
    assert one.page(1, 0)[0].detail == "gw, incarnation 01, 2 to 3"
