"""What an Auditor knows: the position of every emitter and of every region. Pure.

The same steps write the book while events are recorded and restore it from the journal, so that a
restored book equals the one that was written.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, assert_never

from kcm_runtime.audit.event_chain import Chain
from kcm_runtime.audit.stream_chain import Marks, Place, link
from kcm_schemas.audit import GENESIS, AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import decode
from kcm_schemas.signed import read_signed

from kcm_auditor.journal.format import (
    Batch,
    Content,
    Head,
    IncarnationPosition,
    Incident,
    IncidentKind,
    Origin,
    Passed,
    Positions,
    RegionPosition,
    Trimmed,
)

SPANS_MAX: Final = 1024
"""Batches of one incarnation that distinguish a duplicate from a fork: far more than are in
flight."""

INCARNATIONS_MAX: Final = 4096
"""Incarnations that are remembered over all emitters. The least recently heard one is forgotten
first, but never the present one of an emitter. A duplicate of a forgotten one looks new."""

MARKS_KEPT: Final = 512
"""Positions of a stream that are kept to compare a trim with: 16,000 dense messages."""

MESSAGES_KEPT: Final = 128
"""The last messages of a stream, with which a repeated one is compared: a consumer begins there."""


@dataclass(frozen=True, slots=True)
class Span:
    """The events of a batch. ``head`` is the hash after its last event."""

    first: int
    last: int
    head: bytes


@dataclass(slots=True)
class IncarnationState:
    """One incarnation of an emitter: ``chain`` expects its next event; ``last_ms`` is its clock."""

    emitter: str
    incarnation: bytes
    chain: Chain = field(default_factory=Chain)
    last_ms: int = 0
    stopped: bool = False
    overlapped: bool = False
    spans: deque[Span] = field(default_factory=lambda: deque(maxlen=SPANS_MAX))


@dataclass(slots=True)
class RegionState:
    """A region's stream: its creation, and the position up to which it is recorded.

    ``place`` is its chain; an empty digest means that messages before it are not known. ``mark`` is
    the last position of the chain at which readers compare. ``lost`` are the messages that were
    trimmed and are not here. ``messages`` has the digests of the last messages, of which the last
    one survives a restart. ``had`` is that of ``Origin``, and ``before`` has positions of this very
    stream before its rollback.
    """

    created: str = ""
    position: int = 0
    place: Place = field(default_factory=Place)
    mark: Place | None = None
    marks: Marks = field(default_factory=lambda: Marks(limit=MARKS_KEPT))
    messages: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    had: int = 0
    before: dict[int, bytes] = field(default_factory=dict)
    trimmed: int = 0
    witnesses: int = 0
    lost: tuple[int, int] | None = None
    rebased: int = 0
    """The trim from which the chain was read again; once for each, or a hole would repeat it."""

    @property
    def whole(self) -> bool:
        """Whether this journal has the stream without a hole, so that a head may be signed."""
        return self.lost is None and bool(self.place.digest)

    @property
    def known(self) -> dict[int, bytes]:
        """The chain's digests at the positions where it is known."""
        places = (*self.marks.places, self.mark, self.place)
        return {place.sequence: place.digest for place in places if place and place.digest}

    def take(self, sequence: int, subject: str, body: bytes) -> None:
        """Take the next message of the chain; one that came before changes nothing."""
        if sequence <= self.place.sequence:
            return
        self.remember(sequence, message_digest(sequence, subject, body))
        if sequence == self.place.sequence + 1 and self.place.digest:
            self.stand(self.place.append(sequence, subject, body))
        else:
            self.stand(Place(sequence, b""))

    def remember(self, sequence: int, digest: bytes) -> None:
        """Keep the digest of a message while it is one of the last; an empty one is not kept."""
        if digest:
            self.messages[sequence] = digest
        if len(self.messages) > MESSAGES_KEPT:
            self.messages.popitem(last=False)

    def stand(self, place: Place) -> None:
        """Set the chain's position."""
        self.place = place
        if place.digest and self.marks.note(place):
            self.mark = place


class Book:
    """Positions of incarnations and regions, and how much was recorded."""

    def __init__(self, auditor: str) -> None:
        self._auditor: Final = auditor
        self._incarnations: Final = OrderedDict[tuple[str, bytes], IncarnationState]()
        self._current: Final = dict[str, IncarnationState]()
        self._regions: Final = dict[str, RegionState]()
        self.events = 0
        """Events recorded since the journal began."""
        self.incidents = 0
        """Incidents recorded since the journal began."""

    def incarnation(self, emitter: str, incarnation: bytes) -> IncarnationState | None:
        """Return an incarnation, or ``None``."""
        return self._incarnations.get((emitter, incarnation))

    def current(self, emitter: str) -> IncarnationState | None:
        """Return the latest incarnation of an emitter, or ``None``."""
        return self._current.get(emitter)

    def region(self, name: str) -> RegionState:
        """Return a region's state, empty at first."""
        return self._regions.setdefault(name, RegionState())

    def reach(self, region: str, position: int) -> None:
        """Note that everything up to ``position`` of a region's stream was processed."""
        state = self.region(region)
        state.position = max(state.position, position)

    def begin_stream(self, origin: Origin) -> None:
        """Note that positions of this region belong to another stream from now on."""
        former = self.region(origin.region)
        state = RegionState(origin.created)
        if former.created == origin.created:
            # Trimmed messages of this very stream do not return with a rollback of its disk: what
            # was recorded of them stays recorded, and what was lost stays lost.
            state.trimmed, state.witnesses = former.trimmed, former.witnesses
            state.lost, state.had = former.lost, origin.had
            state.before = former.known if former.position else former.before
        self._regions[origin.region] = state

    def advance(self, batch: AuditBatch) -> None:
        """Note that a batch is recorded: its next event is expected."""
        key = (batch.emitter, batch.incarnation)
        state = self._incarnations.get(key)
        if state is None:
            state = IncarnationState(batch.emitter, batch.incarnation)
            self._incarnations[key] = state
            self._current[batch.emitter] = state
            self._forget()
        span = span_of(batch)
        state.spans.append(span)
        state.chain = Chain(span.last + 1, span.head)
        last = decode(AuditEvent, batch.events[-1])
        state.last_ms, state.stopped = last.time_ms, last.type == EventType.INSTANCE_STOP
        self._incarnations.move_to_end(key)
        self.events += len(batch.events)

    def restore(self, content: Content) -> None:
        """Apply an entry of the journal, in its order; raises ``KcmError`` if it is damaged."""
        match content:
            case Positions():
                self._restore_positions(content)
            case Origin():
                self.begin_stream(content)
            case Batch():
                self.reach(content.region, content.position)
                self.advance(decode(AuditBatch, read_signed(content.statement).body))
            case Incident():
                self.incidents += 1
                if content.region is not None:
                    self.reach(content.region, content.position)
                    self.lose(content)
            case Passed():
                self.reach(content.region, content.position)
                state = self.region(content.region)
                state.place = Place(content.position, content.digest)
                state.remember(content.position, content.message)
                mark = _mark(content.mark, content.mark_digest)
                if mark is not None and mark != state.mark:
                    state.marks.note(mark)
                state.mark = mark
            case Trimmed():
                self.trim(content)
            case Head():
                pass
            case _:  # pragma: no cover - the type checker proves it
                assert_never(content)

    def passed(self, region: str) -> Passed:
        """Return the position of a region's chain as an entry."""
        state = self.region(region)
        mark = state.mark or Place(0, b"")
        return Passed(
            region=region,
            position=state.place.sequence,
            digest=state.place.digest,
            mark=mark.sequence,
            mark_digest=mark.digest,
            message=state.messages.get(state.place.sequence, b""),
        )

    def trim(self, trimmed: Trimmed) -> None:
        """Note that messages were trimmed from a region's stream."""
        state = self.region(trimmed.region)
        state.trimmed, state.witnesses = trimmed.through, trimmed.witnesses

    def lose(self, incident: Incident) -> None:
        """Note a loss, or that an operator accepted it."""
        if incident.region is None:
            return
        state = self.region(incident.region)
        if incident.incident is IncidentKind.JOURNAL_LOST:
            first = state.lost[0] if state.lost is not None else incident.first
            state.lost = (first, incident.last)
        elif incident.incident is IncidentKind.LOSS_ACCEPTED:
            state.lost = None

    @property
    def losses(self) -> dict[str, tuple[int, int]]:
        """First and last lost message of each region."""
        return {name: state.lost for name, state in self._regions.items() if state.lost is not None}

    def positions(self) -> Positions:
        """Return everything that a restart needs."""
        return Positions(
            auditor=self._auditor,
            events=self.events,
            incidents=self.incidents,
            incarnations=tuple(
                IncarnationPosition(
                    emitter=state.emitter,
                    incarnation=state.incarnation,
                    next_seq=state.chain.next_seq,
                    head=state.chain.head,
                    last_ms=state.last_ms,
                    stopped=state.stopped,
                    current=self._current.get(state.emitter) is state,
                )
                for state in self._incarnations.values()
            ),
            regions=tuple(_region_position(name, state) for name, state in self._regions.items()),
        )

    def _forget(self) -> None:
        if len(self._incarnations) <= INCARNATIONS_MAX:
            return
        for key, state in self._incarnations.items():
            if self._current.get(state.emitter) is not state:
                del self._incarnations[key]
                return

    def _restore_positions(self, positions: Positions) -> None:
        self.events, self.incidents = positions.events, positions.incidents
        self._incarnations.clear()
        self._current.clear()
        self._regions.clear()
        for entry in positions.incarnations:
            chain = Chain(entry.next_seq, entry.head)
            state = IncarnationState(
                entry.emitter, entry.incarnation, chain, entry.last_ms, entry.stopped
            )
            self._incarnations[entry.emitter, entry.incarnation] = state
            if entry.current:
                self._current[entry.emitter] = state
        for region in positions.regions:
            stream = RegionState(
                region.created,
                region.position,
                place=Place(region.passed, region.digest),
                mark=_mark(region.mark, region.mark_digest),
                trimmed=region.trimmed,
                witnesses=region.witnesses,
                lost=(region.lost_first, region.lost_last) if region.lost_last else None,
                had=region.had,
            )
            stream.remember(region.passed, region.message)
            if stream.mark is not None:
                stream.marks.note(stream.mark)
            self._regions[region.region] = stream


def span_of(batch: AuditBatch) -> Span:
    """Return the events of a batch as a span."""
    head = Chain(batch.first, batch.previous).extend(batch.events).head
    return Span(batch.first, batch.first + len(batch.events) - 1, head)


def message_digest(sequence: int, subject: str, body: bytes) -> bytes:
    """Return the digest of one message at its position, independent of those before it."""
    return link(GENESIS, sequence, subject, body)


def _mark(sequence: int, digest: bytes) -> Place | None:
    return Place(sequence, digest) if sequence else None


def _region_position(name: str, state: RegionState) -> RegionPosition:
    mark = state.mark or Place(0, b"")
    lost = state.lost or (0, 0)
    return RegionPosition(
        region=name,
        created=state.created,
        position=state.position,
        passed=state.place.sequence,
        digest=state.place.digest,
        mark=mark.sequence,
        mark_digest=mark.digest,
        trimmed=state.trimmed,
        witnesses=state.witnesses,
        lost_first=lost[0],
        lost_last=lost[1],
        had=state.had,
        message=state.messages.get(state.place.sequence, b""),
    )
