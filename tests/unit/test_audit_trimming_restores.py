"""A trimmed stream that went back, and trims that wait for the last message to be compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from kcm_auditor.journal.verify import verify
from kcm_runtime.audit.stream_chain import Place

from tests.audit_rig import System
from tests.unit.audit_trimming_rig import Stream, filled, incarnation, with_two_auditors


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_two_auditors(tmp_path)


@pytest.fixture
def stream(system: System) -> Stream:
    return filled(system)


async def test_a_trim_that_was_only_decided_hides_no_loss_when_the_stream_goes_back(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:10])
    trim = stream.trim(128)
    await run.recorder.trimmed("eu", trim, stream.facts)
    await run.recorder.went_back("eu", 10)
    stream.first = 129
    await run.read(stream, trim)
    assert run.incidents() == ["stream-rolled-back", "journal-lost", "gap"]
    assert (run.alarms[1].first, run.alarms[1].last) == (10, 128)
    await run.end()


async def test_a_stream_that_went_back_begins_another_chain(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.read(stream)
    del stream.bodies[70:]
    await run.recorder.opened("eu", stream.facts, b"")
    assert run.incidents() == ["stream-rolled-back"]
    assert run.recorder.head("eu") is None
    await run.look(stream)
    assert run.recorder.head("eu") == Place(64, stream.digest(64))
    await run.end()


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_trimmed_before_a_stream_went_back_is_not_lost(
    system: System, stream: Stream, *, restarted: bool
) -> None:
    run = incarnation(system, segment_bytes=1)
    await run.read(stream)
    trim = stream.trim(64)
    stream.first = 65
    await run.look(stream, trim)
    if restarted:
        await run.end()
        run = incarnation(system, segment_bytes=1)
        await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.went_back("eu", 150)
    await run.read(stream, trim)
    assert run.incidents() == ["stream-rolled-back"]
    assert run.recorder.head("eu") == Place(128, stream.digest(128))
    # What was trimmed behind that and was not read again is lost.
    await run.recorder.went_back("eu", 150)
    del stream.bodies[70:]
    stream.fill(80)
    stream.first = 129
    await run.read(stream, stream.trim(128))
    lost = next(found for found in run.alarms if found.incident == "journal-lost")
    assert (lost.first, lost.last) == (65, 128)
    assert run.recorder.head("eu") is None
    await run.end()


@pytest.mark.parametrize("segment_bytes", [1 << 26, 1])
async def test_what_was_trimmed_is_known_when_it_ends_just_after_the_stream_went_back(
    system: System, stream: Stream, segment_bytes: int
) -> None:
    run = incarnation(system, segment_bytes=segment_bytes)
    await run.read(stream)
    trim = stream.trim(64)
    stream.first = 65
    await run.look(stream, trim)
    await run.recorder.went_back("eu", 150)
    await run.end()
    again = incarnation(system, segment_bytes=segment_bytes)
    await again.read(stream, trim)
    assert "journal-lost" not in again.incidents()
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    await again.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


@pytest.mark.parametrize("segment_bytes", [1 << 26, 1])
async def test_a_trim_of_what_is_known_from_before_is_no_loss(
    system: System, stream: Stream, segment_bytes: int
) -> None:
    """The stream was trimmed while nobody looked, and then it went back."""
    run = incarnation(system, segment_bytes=segment_bytes)
    await run.read(stream)
    await run.end()
    del stream.bodies[140:]
    stream.first = 129
    again = incarnation(system, segment_bytes=segment_bytes)
    await again.read(stream, stream.trim(128))
    assert again.incidents() == ["stream-rolled-back"]
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    await again.end()


async def test_a_trim_waits_until_the_last_message_was_compared(
    system: System, stream: Stream
) -> None:
    """It may be of what was written after the stream went back, which nobody has here."""
    run = incarnation(system)
    await run.read(stream)
    await run.end()
    del stream.bodies[70:]
    stream.fill(80)
    trim = stream.trim(128)
    stream.first = 129
    again = incarnation(system)
    await again.read(stream, trim)
    (last,) = stream.arrivals(149)
    assert not again.recorder.recorded(last)
    await again.recorder.went_back("eu", 150)
    await again.read(stream, trim)
    lost = next(found for found in again.alarms if found.incident == "journal-lost")
    assert (lost.first, lost.last) == (1, 128)
    await again.end()


async def test_a_trim_is_noted_when_the_last_message_is_the_same(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.read(stream)
    await run.end()
    trim = stream.trim(64)
    stream.first = 65
    again = incarnation(system)
    await again.read(stream)
    (last,) = stream.arrivals(149)
    assert again.recorder.recorded(last)
    await again.look(stream, trim)
    assert again.recorder.ledger.book.region("eu").trimmed == 64
    await again.end()


@pytest.mark.parametrize("through", [64, 128])
async def test_a_trim_where_the_journal_ends_is_compared_after_a_restart(
    system: System, stream: Stream, through: int
) -> None:
    del stream.bodies[128:]
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    arrivals = stream.arrivals(0)
    for at in range(0, 128, 32):
        await run.recorder.take(arrivals[at : at + 32])
    await run.end()
    stream.first = 129
    again = incarnation(system)
    await again.read(stream, stream.trim(through, digest=b"x" * 32))
    assert again.incidents() == ["trim-disputed"]
    await again.end()
