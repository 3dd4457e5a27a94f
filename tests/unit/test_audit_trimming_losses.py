"""An Auditor beside a stream that is trimmed: what it lost, and what is no hole."""

from __future__ import annotations

from pathlib import Path

import pytest
from kcm_auditor.journal.format import IncidentKind, Trimmed
from kcm_auditor.journal.verify import verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.positions import Book
from kcm_runtime.audit.stream_chain import Place

from tests.audit_rig import FakeClock, System
from tests.unit.audit_trimming_rig import Stream, filled, incarnation, with_two_auditors


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_two_auditors(tmp_path)


@pytest.fixture
def stream(system: System) -> Stream:
    return filled(system)


async def test_what_was_trimmed_and_is_here_is_no_hole(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.read(stream)
    trim = stream.trim(128)
    stream.first = 129
    await run.look(stream, trim)
    await run.look(stream, trim)
    await run.end()
    # Also for who starts afterwards, and when everything was emptied.
    for first in (129, 151):
        stream.first = first
        again = incarnation(system)
        await again.read(stream, trim)
        assert again.incidents() == []
        assert again.recorder.head("eu") == Place(128, stream.digest(128))
        await again.end()
    report = verify(system.directory / "journal", system.verifier)
    assert (report.problems, report.incidents) == ((), 0)
    book = Book("auditor")
    journal = Journal(system.directory / "journal", FakeClock(), book.positions)
    kept = []
    journal.open(lambda entry: kept.append(entry.content))
    assert len([content for content in kept if isinstance(content, Trimmed)]) == 1
    await journal.close()


async def test_a_journal_that_was_put_back_behind_a_trim_is_found_out(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:100])
    await run.end()
    trim = stream.trim(128)
    stream.first = 129
    back = incarnation(system)
    await back.read(stream, trim)
    # The emitter's events were in those messages: that is the gap.
    assert back.incidents() == ["journal-lost", "gap"]
    alarm, _ = back.alarms
    assert (alarm.region, alarm.first, alarm.last) == ("eu", 101, 128)
    # It records on, and says nothing about the stream as long as it has not all of it.
    stream.fill(100)
    await back.look(stream, trim)
    assert back.recorder.position("eu") == 250
    assert back.recorder.head("eu") is None
    await back.end()
    # After a restart as well, and whoever verifies the journal is told.
    again = incarnation(system)
    await again.read(stream, trim)
    assert again.recorder.head("eu") is None
    assert again.alarms == []
    await again.end()
    (problem,) = verify(system.directory / "journal", system.verifier).problems
    assert "messages 101 to 128 were trimmed" in problem
    # Its operator may say that this is known; then it signs what all others have too.
    accepting = incarnation(system)
    (lost,) = accepting.recorder.ledger.book.losses.values()
    accepted = alarm.model_copy(update={"incident": IncidentKind.LOSS_ACCEPTED})
    accepting.recorder.ledger.note(accepted)
    await accepting.recorder.journal.submit([accepted])
    await accepting.end()
    assert lost == (101, 128)
    last = incarnation(system)
    await last.read(stream, trim)
    stream.fill(50)
    await last.look(stream)
    assert last.recorder.head("eu") == Place(256, stream.digest(256))
    await last.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


async def test_a_trim_that_is_seen_before_the_stream_was_opened_waits(
    system: System, stream: Stream
) -> None:
    """Looking for trims and opening the stream run side by side."""
    stream.first = 129
    run = incarnation(system)
    await run.recorder.trimmed("eu", stream.trim(128), stream.facts)
    assert run.incidents() == []
    await run.read(stream, stream.trim(128))
    assert run.incidents() == ["journal-lost", "gap"]
    await run.end()


async def test_an_auditor_that_read_too_slowly_lost_entries_too(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:10])
    stream.first = 129
    await run.look(stream, stream.trim(128))
    assert run.incidents() == ["journal-lost", "gap"]
    assert (run.alarms[0].first, run.alarms[0].last) == (11, 128)
    await run.end()


async def test_entries_that_are_still_there_are_not_lost(system: System, stream: Stream) -> None:
    """The trim was decided, and not carried out yet."""
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:10])
    await run.look(stream, stream.trim(128))
    assert run.incidents() == []
    assert run.recorder.head("eu") == Place(128, stream.digest(128))
    await run.end()


async def test_entries_that_were_still_there_when_the_trim_was_decided_may_be_lost(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:10])
    trim = stream.trim(128)
    await run.recorder.trimmed("eu", trim, stream.facts)
    stream.first = 129
    await run.look(stream, trim)
    assert run.incidents() == ["journal-lost", "gap"]
    assert (run.alarms[0].first, run.alarms[0].last) == (11, 128)
    await run.end()


async def test_a_journal_that_begins_behind_a_trim_lacks_it(system: System, stream: Stream) -> None:
    stream.first = 129
    run = incarnation(system)
    await run.read(stream, stream.trim(128))
    assert run.incidents() == ["journal-lost", "gap"]
    assert (run.alarms[0].first, run.alarms[0].last) == (1, 128)
    await run.end()


@pytest.mark.parametrize("trim", [None, "nobody", "signer"])
async def test_what_vanished_without_a_believed_trim_is_a_hole(
    system: System, stream: Stream, trim: str | None
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:100])
    raw = None
    if trim == "nobody":
        raw = stream.trim(128, heads=0)
    elif trim == "signer":
        raw = stream.trim(128)
        raw = raw[:-1] + bytes([raw[-1] ^ 1])
    stream.first = 129
    await run.look(stream, raw)
    await run.look(stream, raw)
    expected = (["untrusted"] if trim else []) + ["stream-hole"]
    assert run.incidents() == [*expected, "gap"]
    hole = next(found for found in run.alarms if found.incident == "stream-hole")
    assert (hole.first, hole.last) == (101, 128)
    # What is not known is not signed.
    stream.fill(200)
    await run.look(stream, raw)
    assert run.recorder.head("eu") is None
    await run.end()


async def test_more_vanished_than_was_trimmed(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:100])
    stream.first = 140
    await run.look(stream, stream.trim(128))
    spans = {found.incident: (found.first, found.last) for found in run.alarms[:2]}
    assert spans == {"journal-lost": (101, 128), "stream-hole": (129, 139)}
    await run.end()


async def test_a_hole_heals_behind_the_next_trim_once(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    arrivals = stream.arrivals(0)
    # Somebody kept messages 31 to 40 from this Auditor alone.
    await run.recorder.take([a for a in arrivals if not 30 < a.position <= 40])
    assert run.recorder.head("eu") is None
    stream.first = 65
    await run.recorder.trimmed("eu", stream.trim(64), stream.facts)
    assert run.recorder.position("eu") == 64
    await run.look(stream, stream.trim(64))
    assert run.recorder.head("eu") == Place(128, stream.digest(128))
    assert run.incidents() == ["stream-hole", "gap"]
    await run.end()
