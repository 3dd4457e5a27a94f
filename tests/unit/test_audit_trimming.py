"""An Auditor beside a stream that is trimmed: what it signs, what it lost, and what is no hole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kcm_auditor.arrivals import Arrival
from kcm_auditor.heads import SignedHeads, to_sign
from kcm_auditor.journal.format import Incident, IncidentKind, Passed, Trimmed
from kcm_auditor.journal.verify import verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.liveness import Watch
from kcm_auditor.positions import Book
from kcm_auditor.recorder import Recorder
from kcm_auditor.roster_reload import RosterReload
from kcm_auditor.sink import StreamFacts
from kcm_runtime.audit.stream_chain import MARK_EVERY, Place
from kcm_runtime.config import ConfigError
from kcm_schemas.auditor import StreamHead, Trim
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.audit_rig import Emitting, FakeClock, System, event

CREATED = 7
NAME = "2026-01-01T00:00:00+00:00"


@dataclass
class Stream:
    """What the region's stream held, all of it, and from where on it still does."""

    system: System
    bodies: list[bytes] = field(default_factory=list)
    first: int = 1

    def fill(self, count: int) -> None:
        gw = self.gw
        self.bodies += [gw.signed([event()]) for _ in range(count)]

    def __post_init__(self) -> None:
        self.gw = Emitting(self.system, "gw")

    @property
    def facts(self) -> StreamFacts:
        last = len(self.bodies)
        return StreamFacts(NAME, last, self.first, 1, 1, CREATED)

    def arrivals(self, behind: int) -> list[Arrival]:
        return [
            Arrival("eu", at, "kcm.v1.eu.audit.gw", body)
            for at, body in enumerate(self.bodies, 1)
            if at > behind and at >= self.first
        ]

    def digest(self, through: int) -> bytes:
        place = Place()
        for at, body in enumerate(self.bodies[:through], 1):
            place = place.append(at, "kcm.v1.eu.audit.gw", body)
        return place.digest

    def trim(self, through: int, *, digest: bytes | None = None, heads: int = 1) -> bytes:
        said = self.digest(through) if digest is None else digest
        head = StreamHead(
            auditor="other", region="eu", created=CREATED, through=through, digest=said, time_ms=1
        )
        raw = encode(self.system.identities["other"].sign(Kind.STREAM_HEAD, head))
        body = Trim(
            region="eu",
            created=CREATED,
            through=through,
            digest=said,
            issued_ms=1,
            heads=[raw] if heads else [b"nobody"],
        )
        return encode(self.system.identities["core"].sign(Kind.TRIM, body))


@dataclass
class Incarnation:
    """One start of the Auditor over a journal's directory."""

    recorder: Recorder
    alarms: list[Incident]

    async def read(self, stream: Stream, trim: bytes | None = None) -> None:
        """As ``RegionFeed`` does: open, ask for the last trim, read from where the journal is."""
        await self.recorder.opened("eu", stream.facts, 0)
        await self.look(stream, trim)

    async def look(self, stream: Stream, trim: bytes | None = None) -> None:
        if trim is not None:
            await self.recorder.trimmed("eu", trim, stream.facts)
        await self.recorder.take(stream.arrivals(self.recorder.position("eu")))

    def incidents(self) -> list[str]:
        return [entry.incident for entry in self.recorder.recent.page(256, 0) if entry.incident]

    async def end(self) -> None:
        await self.recorder.journal.close()


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    system.add("core", Role.CORE)
    system.add("auditor", Role.AUDITOR)
    system.add("other", Role.AUDITOR)
    return system


def incarnation(
    system: System, directory: str = "journal", segment_bytes: int = 1 << 26
) -> Incarnation:
    clock, book, alarms = FakeClock(), Book("auditor"), list[Incident]()
    journal = Journal(system.directory / directory, clock, book.positions, segment_bytes)
    trust = RosterReload(system.rosters(), system.write_roster())
    recorder = Recorder(
        system.membership("auditor", b"a" * 16),
        trust,
        journal,
        book,
        Watch(["eu"], clock.elapsed()),
        clock,
        alarms.append,
    )
    recorder.open()
    return Incarnation(recorder, alarms)


@pytest.fixture
def stream(system: System) -> Stream:
    stream = Stream(system)
    stream.fill(150)
    return stream


async def test_a_head_is_at_a_mark_that_is_on_the_disk(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[: MARK_EVERY - 1])
    assert run.recorder.head("eu") is None
    await run.recorder.take(stream.arrivals(MARK_EVERY - 1))
    head = run.recorder.head("eu")
    assert head is not None
    assert (head.sequence, head.digest) == (128, stream.digest(128))
    await run.end()


@pytest.mark.parametrize("segment_bytes", [1 << 26, 1])
async def test_the_chain_goes_on_after_a_restart(
    system: System, stream: Stream, segment_bytes: int
) -> None:
    run = incarnation(system, segment_bytes=segment_bytes)
    await run.read(stream)
    await run.end()
    stream.fill(100)
    again = incarnation(system, segment_bytes=segment_bytes)
    await again.recorder.opened("eu", stream.facts, 0)
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    await again.look(stream)
    assert again.recorder.head("eu") == Place(192, stream.digest(192))
    assert again.incidents() == []
    await again.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


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
    await run.recorder.opened("eu", stream.facts, 0)
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
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:10])
    stream.first = 129
    await run.look(stream, stream.trim(128))
    assert run.incidents() == ["journal-lost", "gap"]
    assert (run.alarms[0].first, run.alarms[0].last) == (11, 128)
    await run.end()


async def test_entries_that_are_still_there_are_not_lost(system: System, stream: Stream) -> None:
    """The trim was decided, and not carried out yet."""
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:10])
    await run.look(stream, stream.trim(128))
    assert run.incidents() == []
    assert run.recorder.head("eu") == Place(128, stream.digest(128))
    await run.end()


async def test_entries_that_were_still_there_when_the_trim_was_decided_may_be_lost(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:10])
    trim = stream.trim(128)
    await run.recorder.trimmed("eu", trim, stream.facts)
    stream.first = 129
    await run.look(stream, trim)
    assert run.incidents() == ["journal-lost", "gap"]
    assert (run.alarms[0].first, run.alarms[0].last) == (11, 128)
    await run.end()


async def test_a_trim_that_was_only_decided_hides_no_loss_when_the_stream_goes_back(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:10])
    trim = stream.trim(128)
    await run.recorder.trimmed("eu", trim, stream.facts)
    await run.recorder.went_back("eu", 10)
    stream.first = 129
    await run.read(stream, trim)
    assert run.incidents() == ["stream-rolled-back", "journal-lost", "gap"]
    assert (run.alarms[1].first, run.alarms[1].last) == (10, 128)
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
    await run.recorder.opened("eu", stream.facts, 0)
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
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:100])
    stream.first = 140
    await run.look(stream, stream.trim(128))
    spans = {found.incident: (found.first, found.last) for found in run.alarms[:2]}
    assert spans == {"journal-lost": (101, 128), "stream-hole": (129, 139)}
    await run.end()


async def test_a_hole_heals_behind_the_next_trim_once(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
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


async def test_a_trim_with_another_digest_is_disputed(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.read(stream)
    await run.look(stream, stream.trim(128, digest=b"x" * 32))
    await run.look(stream, stream.trim(128, digest=b"x" * 32))
    assert run.incidents() == ["trim-disputed"]
    await run.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


async def test_a_crash_between_a_batch_and_the_chain_reads_it_again(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, 0)
    await run.recorder.take(stream.arrivals(0)[:100])
    await run.recorder.take(stream.arrivals(100))
    await run.end()
    (path,) = (system.directory / "journal").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert b'"kind":"passed"' in lines[-1]
    path.write_bytes(b"".join(lines[:-1]))
    again = incarnation(system)
    assert again.recorder.position("eu") == 100
    await again.read(stream)
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    assert again.incidents() == []
    await again.end()
    report = verify(system.directory / "journal", system.verifier)
    assert (report.problems, report.events) == ((), 150)


async def test_a_stream_that_went_back_begins_another_chain(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.read(stream)
    del stream.bodies[70:]
    await run.recorder.opened("eu", stream.facts, 0)
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
        await run.recorder.opened("eu", stream.facts, 0)
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
    await run.recorder.opened("eu", stream.facts, 0)
    arrivals = stream.arrivals(0)
    for at in range(0, 128, 32):
        await run.recorder.take(arrivals[at : at + 32])
    await run.end()
    stream.first = 129
    again = incarnation(system)
    await again.read(stream, stream.trim(through, digest=b"x" * 32))
    assert again.incidents() == ["trim-disputed"]
    await again.end()


def test_nothing_is_signed_below_what_was_signed() -> None:
    low, high = Place(64, b"l" * 32), Place(128, b"h" * 32)
    assert to_sign(None, 0, 0) is None
    assert to_sign(low, 0, 0) == low
    assert to_sign(low, 64, 64) is None
    # Signed and not stored, because this process ended in between: the same once more.
    assert to_sign(low, 64, 0) == low
    assert to_sign(low, 128, 0) is None
    assert to_sign(low, 128, 128) is None
    assert to_sign(high, 64, 64) == high


def test_what_was_signed_is_on_the_disk_for_each_stream(tmp_path: Path) -> None:
    path = tmp_path / "state" / "signed"
    signed = SignedHeads(path)
    assert signed.through("eu", 1) == 0
    signed.raise_to("eu", 1, 64)
    signed.raise_to("us", 1, 128)
    again = SignedHeads(path)
    assert (again.through("eu", 1), again.through("us", 1)) == (64, 128)
    assert again.through("eu", 2) == 0
    path.write_text("[]")
    with pytest.raises(ConfigError, match="damaged"):
        SignedHeads(path)


def test_the_place_of_a_chain_comes_back_from_its_line() -> None:
    book = Book("auditor")
    book.restore(Passed(region="eu", position=70, digest=b"d" * 32, mark=64, mark_digest=b"m" * 32))
    assert book.region("eu").place == Place(70, b"d" * 32)
    assert book.region("eu").mark == Place(64, b"m" * 32)
    assert book.region("eu").whole
