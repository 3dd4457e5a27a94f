"""Properties of the journal: what happens to its bytes or its process shows or is healed."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from kcm_auditor.arrivals import Arrival
from kcm_auditor.chain_checker import ChainChecker
from kcm_auditor.journal.format import (
    START,
    Batch,
    Content,
    Entry,
    Head,
    Incident,
    IncidentKind,
    Origin,
    Passed,
    Trimmed,
    read,
    write,
)
from kcm_auditor.journal.verify import verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.positions import Book
from kcm_runtime.audit.stream_chain import Place
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, FakeClock, System, event

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=63)
numbers = st.integers(0, (1 << 63) - 1)
incidents = st.builds(
    Incident,
    incident=st.sampled_from(IncidentKind),
    region=st.none() | names,
    position=st.just(0),
    emitter=st.none() | names,
    incarnation=st.binary(max_size=16),
    first=numbers,
    last=numbers,
    detail=st.text(max_size=50),
    digest=st.binary(max_size=32),
    statement=st.binary(max_size=200),
)
contents: st.SearchStrategy[Content] = st.one_of(
    incidents,
    st.builds(Batch, region=names, position=numbers, statement=st.binary(max_size=200)),
    st.builds(Origin, region=names, created=st.text(max_size=40)),
    st.builds(Head, statement=st.binary(max_size=200)),
    st.builds(
        Passed,
        region=names,
        position=numbers,
        digest=st.binary(max_size=32),
        mark=numbers,
        mark_digest=st.binary(max_size=32),
    ),
    st.builds(
        Trimmed,
        region=names,
        through=numbers,
        witnesses=numbers,
        statement=st.binary(max_size=200),
    ),
)
entries = st.builds(
    Entry,
    seq=numbers,
    previous=st.binary(min_size=32, max_size=32).map(bytes.hex),
    time_ms=numbers,
    content=contents,
)


@given(entries)
def test_every_entry_comes_back_from_its_line(entry: Entry) -> None:
    line, digest = write(entry)
    assert line.count(b"\n") == 1
    assert read(line) == (entry, digest)


async def _write(directory: Path, groups: list[list[Incident]], segment_bytes: int) -> Book:
    book = Book("auditor")
    journal = Journal(directory, FakeClock(), book.positions, segment_bytes)
    journal.open(lambda entry: book.restore(entry.content))
    futures: list[asyncio.Future[None]] = []
    for group in groups:
        for incident in group:
            book.restore(incident)
        futures.append(journal.submit(group))
    await asyncio.gather(*futures)
    await journal.close()
    return book


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


# A statement in an incident is evidence, which verifying checks; a lost part is a problem.
plain = incidents.filter(lambda found: found.incident is not IncidentKind.JOURNAL_LOST).map(
    lambda incident: incident.model_copy(update={"statement": b""})
)
groups = st.lists(st.lists(plain, max_size=4), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(groups, groups, st.integers(1, 4000))
def test_a_journal_is_sound_over_segments_and_restarts(
    first: list[list[Incident]], second: list[list[Incident]], segment_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        before = asyncio.run(_write(directory, first, segment_bytes))
        after = asyncio.run(_write(directory, second, segment_bytes))
        report = verify(directory)
        assert report.problems == ()
        assert before.incidents == sum(map(len, first))
        assert report.incidents == after.incidents == sum(map(len, first + second))


@settings(max_examples=100, deadline=None)
@given(groups, st.data())
def test_any_changed_byte_shows(content: list[list[Incident]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        asyncio.run(_write(directory, content, 1500))
        path = data.draw(st.sampled_from(_files(directory)))
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        assert not verify(directory).sound


@settings(max_examples=60, deadline=None)
@given(groups, st.data())
def test_a_cut_end_is_healed_and_loses_only_what_was_cut(
    content: list[list[Incident]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        asyncio.run(_write(directory, content, 1500))
        path = _files(directory)[-1]
        raw = path.read_bytes()
        keep = data.draw(st.integers(0 if len(_files(directory)) > 1 else 1, len(raw)))
        path.write_bytes(raw[:keep])
        whole = raw[:keep].count(b"\n") + sum(
            other.read_bytes().count(b"\n") for other in _files(directory)[:-1]
        )
        asyncio.run(_write(directory, [], 1 << 20))
        report = verify(directory)
        assert report.problems == ()
        # An empty journal begins again with its first line.
        assert report.entries == max(whole, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_delivery_of_a_true_story_is_recorded_once(data: st.DataObject) -> None:
    """Repeated or from an earlier point: no event twice, none lost, nothing to report."""
    with tempfile.TemporaryDirectory() as name:
        system = System(Path(name))
        system.add("gw", Role.GATEWAY)
        gw = Emitting(system, "gw")
        sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=10))
        bodies = [gw.signed([event()] * size) for size in sizes]
        ledger = ChainChecker(Book("auditor"))
        written: list[Content] = [*ledger.open_stream("eu", "c", 0, Place())]
        position, at = 0, 0
        while at < len(bodies):
            back = data.draw(st.integers(0, at))
            for body in bodies[back : at + 1]:
                position += 1
                arrival = Arrival("eu", position, "kcm.v1.eu.audit.gw", body)
                written += ledger.take(arrival, system.verifier.audit(body), 0.0)
            at += 1
            if data.draw(st.booleans()):
                # The process ends here and another one restores from what was written.
                book = Book("auditor")
                for content in written:
                    book.restore(content)
                assert book.positions().incarnations == ledger.book.positions().incarnations
                ledger = ChainChecker(book)
        assert [c.statement for c in written if isinstance(c, Batch)] == bodies
        assert not any(isinstance(c, Incident) for c in written)
        assert ledger.book.events == sum(sizes)


def test_the_first_line_follows_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(_write(Path(name), [[]], 1 << 20))
        line = _files(Path(name))[0].read_bytes()
        entry, _ = read(line)
        assert (entry.seq, entry.previous) == (1, START.hex())
