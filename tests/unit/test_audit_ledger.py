from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from kcm_auditor.arrivals import SEQ_MAX, Arrival, Verdict
from kcm_auditor.chain_checker import ChainChecker
from kcm_auditor.journal.format import Batch, Content, Incident, IncidentKind, Origin
from kcm_auditor.positions import INCARNATIONS_MAX, MESSAGES_KEPT, SPANS_MAX, Book
from kcm_auditor.rate_limit import PER_WINDOW, WINDOW_S
from kcm_runtime.audit.stream_chain import MARK_EVERY, Place
from kcm_schemas.audit import EventType
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, System, event

NOW = 1000.0


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System(tmp_path)
    system.add("gw", Role.GATEWAY)
    return system


@pytest.fixture
def gw(system: System) -> Emitting:
    return Emitting(system, "gw")


class Stream:
    """Hands statements to a ledger as a region's stream would, after verifying them."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.ledger = ChainChecker(Book("auditor"))
        self.written: list[Content] = [*self.ledger.open_stream("eu", "created", 0, Place())]
        self.at = 0
        self.now = NOW

    def give(self, body: bytes, *, position: int = 0, emitter: str = "gw") -> list[Content]:
        self.at = position or self.at + 1
        arrival = Arrival("eu", self.at, f"kcm.v1.eu.audit.{emitter}", body)
        batch = self.system.verifier.audit(body)
        contents = list(self.ledger.take(arrival, batch, self.now))
        self.written += [*contents, self.ledger.book.passed("eu")]
        return contents


def kinds(contents: Iterable[Content]) -> list[str]:
    return [c.incident.value if isinstance(c, Incident) else c.kind for c in contents]


def test_the_ordinary_case_is_recorded_as_it_was_signed(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    body = gw.signed([event(EventType.INSTANCE_START), event()])
    (recorded,) = stream.give(body)
    assert isinstance(recorded, Batch)
    assert (recorded.statement, recorded.position) == (body, 1)
    assert kinds(stream.give(gw.signed([event()]))) == ["batch"]
    assert stream.ledger.book.events == 3


def test_a_duplicate_is_not_written_again(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    bodies = [gw.signed([event()]) for _ in range(3)]
    for body in bodies:
        stream.give(body)
    for body in bodies:
        assert stream.give(body) == []
    assert stream.ledger.book.events == 3
    assert stream.ledger.book.incidents == 0


def test_missing_events_are_a_gap(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event()]))
    gw.signed([event(), event()])
    contents = stream.give(gw.signed([event()]))
    assert kinds(contents) == ["gap", "batch"]
    assert isinstance(contents[0], Incident)
    assert (contents[0].first, contents[0].last) == (2, 3)
    assert kinds(stream.give(gw.signed([event()]))) == ["batch"]


def test_an_incarnation_whose_beginning_is_missing_is_a_gap(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    gw.signed([event()])
    assert kinds(stream.give(gw.signed([event()]))) == ["gap", "batch"]


def test_an_admitted_loss_is_told_from_a_gap(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event()]))
    batch = gw.batch([event()])
    jumped = batch.model_copy(update={"first": batch.first + 5})
    contents = stream.give(gw.sign(jumped))
    assert kinds(contents) == ["dropped", "batch"]
    assert isinstance(contents[0], Incident)
    assert (contents[0].first, contents[0].last) == (2, 6)


def test_another_story_about_the_past_is_kept_as_evidence(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    liar = Emitting(system, "gw")
    stream.give(gw.signed([event()]))
    stream.give(gw.signed([event()]))
    other = liar.signed([event(detail="another")])
    (incident,) = stream.give(other)
    assert isinstance(incident, Incident)
    assert (incident.incident, incident.statement) == (IncidentKind.FORK, other)
    assert kinds(stream.give(gw.signed([event()]))) == ["batch"]


def test_a_continuation_of_another_past_is_a_fork(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    liar = Emitting(system, "gw")
    stream.give(gw.signed([event()]))
    liar.signed([event(detail="another")])
    assert kinds(stream.give(liar.signed([event()]))) == ["fork", "batch"]


def test_what_is_older_than_the_memory_is_a_duplicate(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    first = gw.signed([event()])
    stream.give(first)
    for _ in range(SPANS_MAX):
        stream.give(gw.signed([event()]))
    assert stream.give(first) == []


def test_an_incarnation_without_an_end(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event(), event()]))
    contents = stream.give(Emitting(system, "gw", b"c" * 16).signed([event()]))
    assert kinds(contents) == ["restart", "batch"]
    assert isinstance(contents[0], Incident)
    assert (contents[0].incarnation, contents[0].last) == (b"b" * 16, 2)


def test_an_incarnation_after_an_orderly_end(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event(), event(EventType.INSTANCE_STOP)]))
    assert kinds(stream.give(Emitting(system, "gw", b"c" * 16).signed([event()]))) == ["batch"]


def test_two_incarnations_at_once_are_reported_once(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    other = Emitting(system, "gw", b"c" * 16)
    stream.give(gw.signed([event()]))
    stream.give(other.signed([event()]))
    assert kinds(stream.give(gw.signed([event()]))) == ["overlap", "batch"]
    assert kinds(stream.give(gw.signed([event()]))) == ["batch"]
    assert kinds(stream.give(other.signed([event()]))) == ["batch"]


def test_a_statement_under_somebody_elses_subject(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    assert kinds(stream.give(gw.signed([event()]), emitter="core")) == ["misplaced"]
    assert stream.ledger.book.events == 0


def test_a_subject_that_is_none(system: System, gw: Emitting) -> None:
    ledger = ChainChecker(Book("auditor"))
    for position, subject in enumerate(("kcm.v1.us.audit.gw", "kcm.v1.eu.audit", "x"), start=1):
        body = gw.signed([event()])
        arrival = Arrival("eu", position, subject, body)
        assert kinds(ledger.take(arrival, system.verifier.audit(body), NOW)) == ["misplaced"]


def test_a_true_statement_repeated_in_the_wrong_place_is_only_counted_in_the_end(
    system: System, gw: Emitting
) -> None:
    stream = Stream(system)
    body = gw.signed([event()])
    told = [kinds(stream.give(body, emitter="core")) for _ in range(PER_WINDOW + 3)]
    assert told == [["misplaced"]] * PER_WINDOW + [[]] * 3


@pytest.mark.parametrize(
    "change",
    [{"events": [b"no event"]}, {"first": 0}, {"first": SEQ_MAX + 1}],
)
def test_a_signed_batch_that_makes_no_sense(
    system: System, gw: Emitting, change: dict[str, object]
) -> None:
    stream = Stream(system)
    batch = gw.batch([event()]).model_copy(update=change)
    assert kinds(stream.give(gw.sign(batch))) == ["malformed"]


def test_what_is_not_believed_leaves_its_digest_only(system: System) -> None:
    ledger = ChainChecker(Book("auditor"))
    arrival = Arrival("eu", 1, "kcm.v1.eu.audit.gw", b"a secret, perhaps")
    (incident,) = ledger.refuse(arrival, "not a signed statement", NOW)
    assert isinstance(incident, Incident)
    assert incident.incident is IncidentKind.UNTRUSTED
    assert len(incident.digest) == 32
    assert b"secret" not in incident.model_dump_json().encode()


def test_rubbish_does_not_fill_the_journal(system: System) -> None:
    ledger = ChainChecker(Book("auditor"))
    written = [
        content
        for number in range(PER_WINDOW + 500)
        for content in ledger.refuse(
            Arrival("eu", number + 1, "kcm.v1.eu.audit.gw", b"x"), "no", NOW
        )
    ]
    assert len(written) == PER_WINDOW
    assert ledger.settle(NOW) == ()
    (counted,) = ledger.settle(NOW + WINDOW_S)
    assert isinstance(counted, Incident)
    assert (counted.incident, counted.last) == (IncidentKind.SUPPRESSED, 500)
    assert ledger.settle(NOW + 2 * WINDOW_S) == ()


def test_a_hole_in_the_stream(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event()]))
    contents = stream.give(gw.signed([event()]), position=5)
    assert kinds(contents) == ["stream-hole", "batch"]
    assert isinstance(contents[0], Incident)
    assert (contents[0].first, contents[0].last) == (2, 4)


def test_streams_that_are_not_the_same_any_more(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    stream.give(gw.signed([event()]))
    stream.give(gw.signed([event()]))
    ledger = stream.ledger
    assert ledger.compare("us", "created", 9) is Verdict.NEW
    assert ledger.compare("eu", "created", 2) is Verdict.SAME
    assert ledger.open_stream("eu", "created", 2, Place(2)) == ()
    assert kinds(ledger.open_stream("eu", "created", 1, Place())) == [
        "stream-rolled-back",
        "origin",
    ]
    assert ledger.position("eu") == 0
    stream.give(gw.signed([event()]), position=1)
    contents = ledger.open_stream("eu", "later", 0, Place())
    assert kinds(contents) == ["stream-replaced", "origin"]
    assert isinstance(contents[1], Origin)
    assert contents[1].created == "later"


@pytest.mark.parametrize("other", ["garbage", "known", "new", "subject"])
def test_what_comes_at_a_recorded_place_is_compared_by_its_bytes(
    system: System, gw: Emitting, other: str
) -> None:
    stream = Stream(system)
    bodies = [gw.signed([event()]) for _ in range(3)]
    for body in bodies:
        stream.give(body)
    body, subject = bodies[2], "kcm.v1.eu.audit.gw"
    if other == "subject":
        subject = "kcm.v1.eu.audit.gw2"
    else:
        body = {"garbage": b"garbage", "known": bodies[0], "new": gw.signed([event()])}[other]
    restored, carried = Book("auditor"), Book("auditor")
    for content in stream.written:
        restored.restore(content)
    carried.restore(restored.positions())
    for ledger in (stream.ledger, ChainChecker(restored), ChainChecker(carried)):
        assert ledger.same(Arrival("eu", 3, "kcm.v1.eu.audit.gw", bodies[2])) is True
        assert ledger.same(Arrival("eu", 3, subject, body)) is False


def test_messages_in_flight_are_compared_and_older_ones_are_not_kept(
    system: System, gw: Emitting
) -> None:
    stream = Stream(system)
    for _ in range(MESSAGES_KEPT + 2):
        stream.give(gw.signed([event()]))
    ledger = stream.ledger
    assert ledger.same(Arrival("eu", 2, "kcm.v1.eu.audit.gw", b"garbage")) is None
    assert ledger.same(Arrival("eu", 3, "kcm.v1.eu.audit.gw", b"garbage")) is False
    assert len(ledger.book.region("eu").messages) == MESSAGES_KEPT


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("noticed_by", ["its end", "its last message"])
def test_a_head_of_before_a_stream_went_back_does_not_count(
    system: System, gw: Emitting, *, noticed_by: str, restarted: bool
) -> None:
    stream = Stream(system)
    for _ in range(MARK_EVERY + 6):
        stream.give(gw.signed([event()]))
    head = Place(MARK_EVERY, stream.ledger.book.region("eu").known[MARK_EVERY])
    stream.ledger.open_stream("eu", "created", MARK_EVERY + 6, head)
    if noticed_by == "its end":
        stream.written += stream.ledger.open_stream("eu", "created", 1, head)
    else:
        stream.written += stream.ledger.went_back("eu", 2)
    if restarted:
        book = Book("auditor")
        for content in stream.written:
            book.restore(content)
        stream.ledger = ChainChecker(book)
        stream.ledger.open_stream("eu", "created", 2, head)
    else:
        stream.ledger.open_stream("eu", "created", 2, Place())
    assert kinds(stream.give(gw.signed([event()]), position=1)) == ["batch"]


def test_a_new_consumer_of_the_same_process_forgets_no_head(system: System, gw: Emitting) -> None:
    body = gw.signed([event()])
    stream = Stream(system)
    stream.ledger.open_stream("eu", "created", 1, Place(64, b"d" * 32))
    stream.ledger.open_stream("eu", "created", 1, Place())
    assert kinds(stream.give(body)) == ["journal-behind", "batch"]


def test_a_restored_book_equals_the_one_that_wrote(system: System, gw: Emitting) -> None:
    stream = Stream(system)
    other = Emitting(system, "gw", b"c" * 16)
    stream.give(gw.signed([event()]))
    gw.signed([event()])
    stream.give(gw.signed([event()]))
    stream.give(other.signed([event(EventType.INSTANCE_STOP)]))
    stream.give(gw.signed([event()]))
    restored = Book("auditor")
    for content in stream.written:
        restored.restore(content)
    assert restored.positions() == stream.ledger.book.positions()
    again = Book("auditor")
    again.restore(restored.positions())
    assert again.positions() == restored.positions()


def test_incarnations_are_bounded_and_the_present_one_stays(system: System) -> None:
    system.add("core", Role.CORE)
    book = Book("auditor")
    book.advance(Emitting(system, "core", b"k" * 16).batch([event()]))
    for number in range(INCARNATIONS_MAX + 50):
        book.advance(Emitting(system, "gw", number.to_bytes(16, "big")).batch([event()]))
    assert len(book.positions().incarnations) == INCARNATIONS_MAX
    assert book.incarnation("core", b"k" * 16) is not None
    assert book.incarnation("gw", bytes(16)) is None
