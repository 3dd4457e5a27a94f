"""The decision about each batch: what is recorded, and what is wrong. Pure; time is an argument.

Theory of operation. For each incarnation of each emitter, the number of the next event and the hash
before it are known. A verified batch is then one of these:

==============================  ================================================================
it begins                       and means
==============================  ================================================================
at the next number, hash fits   the usual case
at the next number, other hash  **fork**: its signer signed different events elsewhere; recorded
later, hash fits                **dropped**: the emitter itself reports that events were lost
later, other hash               **gap**: signed events are missing
earlier, known                  a duplicate: nothing to do
earlier, other content          **fork**: kept as evidence, without effect
==============================  ================================================================

The last ``SPANS_MAX`` batches of an incarnation are known. An older one counts as a duplicate: the
journal has the first version, and a second one changes nothing.

An incarnation that begins before the previous one has ended with ``instance.stop`` is a **restart**
(it crashed, or its end is missing). Two simultaneous incarnations of one emitter are an **overlap**
(an identity was copied).
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from typing import Final, assert_never

from kcm_runtime.audit.event_chain import Chain
from kcm_runtime.audit.stream_chain import Place
from kcm_schemas.audit import AuditBatch

from kcm_auditor.arrivals import (
    Arrival,
    FoundTrim,
    Verdict,
    digest_of,
    emitter_of,
    numbers_of,
    well_formed,
)
from kcm_auditor.journal.format import Batch, Content, Incident, IncidentKind, Origin, Trimmed
from kcm_auditor.positions import Book, IncarnationState, RegionState, span_of
from kcm_auditor.rate_limit import RateLimit


class ChainChecker:
    """Decides what is recorded. Everything that a call returns is already counted in the book."""

    def __init__(self, book: Book) -> None:
        self.book: Final = book
        self._signed: Final = dict[str, int]()
        self._uncompared: Final = set[str]()
        self._throttles: Final = defaultdict[str, RateLimit](RateLimit)

    def position(self, region: str) -> int:
        """Return the position up to which a region's stream is recorded; 0 for an unknown region.

        A crash during a write can leave entries after the last chain: those are read again.
        """
        return self.book.region(region).place.sequence

    def compare(self, region: str, created: str, last: int) -> Verdict:
        """Compare a stream, created at ``created`` with ``last`` messages, with the journal."""
        state = self.book.region(region)
        if not state.created:
            return Verdict.NEW
        if state.created != created:
            return Verdict.REPLACED
        return Verdict.SAME if last >= state.position else Verdict.ROLLED_BACK

    def open_stream(
        self, region: str, created: str, last: int, signed: Place
    ) -> tuple[Content, ...]:
        """Begin to read a stream; afterwards the book has the position from which to read.

        ``signed`` is the position of the last head of this very stream that this Auditor signed.
        """
        verdict = self.compare(region, created, last)
        position = self.book.region(region).position
        self._uncompared.discard(region)
        wrong: tuple[Content, ...]
        match verdict:
            case Verdict.SAME:
                self._expect(region, signed)
                if self.position(region):
                    self._uncompared.add(region)
                return ()
            case Verdict.NEW:
                # Signed although nothing is known: the whole journal was lost.
                self._expect(region, signed)
                wrong = ()
            case Verdict.REPLACED:
                self._signed.pop(region, None)
                wrong = self._note(IncidentKind.STREAM_REPLACED, region=region, span=(1, position))
            case Verdict.ROLLED_BACK:
                self._signed.pop(region, None)
                span = (last + 1, position)
                wrong = self._note(IncidentKind.STREAM_ROLLED_BACK, region=region, span=span)
            case _:  # pragma: no cover - the type checker proves it
                assert_never(verdict)
        return (*wrong, self._begin(region, created, last))

    def went_back(self, region: str, first: int) -> tuple[Content, ...]:
        """Read the stream from its start, because ``first`` is another message than before."""
        state = self.book.region(region)
        span = (first, max(first, state.position))
        wrong = self._note(IncidentKind.STREAM_ROLLED_BACK, region=region, span=span)
        self._signed.pop(region, None)
        return (*wrong, self._begin(region, state.created, first - 1))

    def same(self, arrival: Arrival) -> bool | None:
        """Whether a message is the one that was recorded at its position; ``None``: not known."""
        state = self.book.region(arrival.region)
        known = state.messages.get(arrival.position)
        same = known == digest_of(arrival) if known else None
        if arrival.position == state.place.sequence and same is not False:
            self._uncompared.discard(arrival.region)
        return same

    def recorded(self, arrival: Arrival, batch: AuditBatch) -> bool:
        """Whether a batch contains no events that are not recorded, and needs no entry.

        This is for a position whose recorded message is not known.
        """
        if (batch.region, batch.emitter) != (arrival.region, emitter_of(arrival)):
            return True
        state = self.book.incarnation(batch.emitter, batch.incarnation)
        known = state is not None and batch.first < state.chain.next_seq
        return known or not well_formed(batch)

    def take(self, arrival: Arrival, batch: AuditBatch, now: float) -> tuple[Content, ...]:
        """Record a batch with a verified signature. ``now`` is in monotonic seconds."""
        before = self._arrive(arrival)
        if (batch.region, batch.emitter) != (arrival.region, emitter_of(arrival)):
            return (*before, *self._keep_out(arrival, IncidentKind.MISPLACED, now, batch))
        if not well_formed(batch):
            return (*before, *self._keep_out(arrival, IncidentKind.MALFORMED, now, batch))
        state = self.book.incarnation(batch.emitter, batch.incarnation)
        if state is None or batch.first >= state.chain.next_seq:
            return (*before, *self._behind(arrival), *self._onward(arrival, batch, state))
        if _repeats(state, batch):
            return before
        return (*before, *self._keep_out(arrival, IncidentKind.FORK, now, batch))

    def refuse(self, arrival: Arrival, reason: str, now: float) -> tuple[Content, ...]:
        """Record that a message was not trusted, by its digest; its content is not kept."""
        before = self._arrive(arrival)
        if not self._throttles[arrival.region].admits(now):
            return before
        incident = Incident(
            incident=IncidentKind.UNTRUSTED,
            region=arrival.region,
            position=arrival.position,
            detail=reason,
            digest=sha256(arrival.body).digest(),
        )
        return (*before, self.note(incident))

    def trimmed(self, found: FoundTrim, first: int) -> tuple[Content, ...]:
        """Note a verified trim of a stream whose first message is ``first`` now.

        Messages that were trimmed and never recorded here are lost. After them, or if messages
        vanished before the trim, the chain continues from the trim's digest. A trim waits until the
        last recorded message was compared with the stream, if that still has it: the stream may
        have been rolled back.
        """
        state = self.book.region(found.region)
        place = state.place
        if found.region in self._uncompared and first <= place.sequence:
            return ()
        had = max(place.sequence, state.had)
        if state.before.get(found.through) == found.digest:
            had = max(had, found.through)
        contents: list[Content] = []
        if found.through > state.trimmed:
            contents += self._dispute(state, found)
            noted = Trimmed(
                region=found.region,
                through=found.through,
                witnesses=found.witnesses,
                statement=found.statement,
            )
            self.book.trim(noted)
            contents.append(noted)
        if place.sequence < found.through and place.sequence + 1 < first:
            if had < found.through:
                span = (had + 1, found.through)
                contents += self._note(IncidentKind.JOURNAL_LOST, region=found.region, span=span)
        elif not _reads_again(state, found.through, first):
            return tuple(contents)
        state.rebased = found.through
        # After the loss, or once more from the trim on: the chain is known there.
        self.book.reach(found.region, found.through)
        state.stand(Place(found.through, found.digest))
        return (*contents, self.book.passed(found.region))

    def _expect(self, region: str, signed: Place) -> None:
        """Note what this Auditor signed: a head is signed after the journal has its messages."""
        state = self.book.region(region)
        # One of the stream before its rollback does not count.
        if state.before.get(signed.sequence) != signed.digest:
            self._signed[region] = max(signed.sequence, self._signed.get(region, 0))

    def _begin(self, region: str, created: str, through: int) -> Origin:
        """Read a stream from its start; above ``through`` it differs from what was read before."""
        state = self.book.region(region)
        had = min(state.trimmed, max(state.place.sequence, state.had), through)
        origin = Origin(region=region, created=created, had=had if created == state.created else 0)
        self.book.begin_stream(origin)
        return origin

    def _dispute(self, state: RegionState, found: FoundTrim) -> tuple[Content, ...]:
        if state.known.get(found.through, found.digest) == found.digest:
            return ()
        incident = Incident(
            incident=IncidentKind.TRIM_DISPUTED,
            region=found.region,
            first=found.through,
            last=found.through,
            statement=found.statement,
        )
        return (self.note(incident),)

    def settle(self, now: float) -> tuple[Content, ...]:
        """Return the incidents that were only counted and whose window is over."""
        settled = ((name, throttle.settle(now)) for name, throttle in self._throttles.items())
        return tuple(
            content
            for name, held in settled
            if held
            for content in self._note(IncidentKind.SUPPRESSED, region=name, span=(1, held))
        )

    def note(self, incident: Incident) -> Incident:
        """Count an incident."""
        self.book.incidents += 1
        self.book.lose(incident)
        return incident

    def _arrive(self, arrival: Arrival) -> tuple[Content, ...]:
        """Note an arrival. Positions are consecutive: the caller passes the stream in order."""
        state = self.book.region(arrival.region)
        expected = max(state.position, state.place.sequence) + 1
        self._uncompared.discard(arrival.region)
        state.take(arrival.position, arrival.subject, arrival.body)
        self.book.reach(arrival.region, arrival.position)
        if arrival.position <= expected:
            return ()
        span = (expected, arrival.position - 1)
        return self._note(IncidentKind.STREAM_HOLE, region=arrival.region, span=span)

    def _behind(self, arrival: Arrival) -> tuple[Content, ...]:
        # Signed means recorded; a new message there was removed from the journal.
        signed = self._signed.get(arrival.region, 0)
        if arrival.position > signed:
            return ()
        del self._signed[arrival.region]
        span = (arrival.position, signed)
        return self._note(IncidentKind.JOURNAL_BEHIND, region=arrival.region, span=span)

    def _onward(
        self, arrival: Arrival, batch: AuditBatch, state: IncarnationState | None
    ) -> tuple[Content, ...]:
        before = self._changed_incarnation(batch, state)
        chain = state.chain if state is not None else Chain()
        if batch.first > chain.next_seq:
            admitted = batch.previous == chain.head
            kind = IncidentKind.DROPPED if admitted else IncidentKind.GAP
            before += self._about(kind, batch, (chain.next_seq, batch.first - 1))
        elif batch.previous != chain.head:
            before += self._about(IncidentKind.FORK, batch, numbers_of(batch))
        self.book.advance(batch)
        record = Batch(region=arrival.region, position=arrival.position, statement=arrival.body)
        return (*before, record)

    def _changed_incarnation(
        self, batch: AuditBatch, state: IncarnationState | None
    ) -> tuple[Content, ...]:
        former = self.book.current(batch.emitter)
        if former is None or former is state:
            return ()
        if state is not None:
            if state.overlapped:
                return ()
            state.overlapped = True
            return self._about(IncidentKind.OVERLAP, batch, numbers_of(batch))
        if former.stopped:
            return ()
        incident = Incident(
            incident=IncidentKind.RESTART,
            region=batch.region,
            emitter=former.emitter,
            incarnation=former.incarnation,
            last=former.chain.next_seq - 1,
        )
        return (self.note(incident),)

    def _keep_out(
        self, arrival: Arrival, kind: IncidentKind, now: float, batch: AuditBatch
    ) -> tuple[Content, ...]:
        """Keep a signed statement as evidence, without effect."""
        if not self._throttles[arrival.region].admits(now):
            return ()
        first, last = numbers_of(batch)
        incident = Incident(
            incident=kind,
            region=arrival.region,
            position=arrival.position,
            emitter=batch.emitter,
            incarnation=batch.incarnation,
            first=first,
            last=last,
            digest=sha256(arrival.body).digest(),
            statement=arrival.body,
        )
        return (self.note(incident),)

    def _about(
        self, kind: IncidentKind, batch: AuditBatch, span: tuple[int, int]
    ) -> tuple[Content, ...]:
        incident = Incident(
            incident=kind,
            region=batch.region,
            emitter=batch.emitter,
            incarnation=batch.incarnation,
            first=span[0],
            last=span[1],
        )
        return (self.note(incident),)

    def _note(
        self, kind: IncidentKind, *, region: str, span: tuple[int, int]
    ) -> tuple[Content, ...]:
        incident = Incident(incident=kind, region=region, first=span[0], last=span[1])
        return (self.note(incident),)


def _repeats(state: IncarnationState, batch: AuditBatch) -> bool:
    if not state.spans or batch.first < state.spans[0].first:
        return True
    return span_of(batch) in state.spans


def _reads_again(state: RegionState, through: int, first: int) -> bool:
    """Whether a chain with a hole can be restored from a trim that was passed."""
    broken = not state.place.digest and state.rebased != through
    return broken and through <= state.place.sequence and first <= through + 1
