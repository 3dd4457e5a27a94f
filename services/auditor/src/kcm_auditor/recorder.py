"""Recording: verify what arrives, check its chain, write the journal.

A decision and its entry are made in one step without an await between them, so that the regions'
tasks cannot interleave. A head is signed only after the entries below it were flushed to the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_schemas.audit import AuditBatch
from kcm_schemas.auditor import AuditHead
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, VerifiedTrim

from kcm_auditor.arrivals import Arrival, FoundTrim, Verdict
from kcm_auditor.chain_checker import ChainChecker
from kcm_auditor.journal.format import Batch, Content, Entry, Head, Incident, IncidentKind
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.writer import Journal, Point
from kcm_auditor.liveness import Watch
from kcm_auditor.positions import Book
from kcm_auditor.roster_reload import RosterReload
from kcm_auditor.sink import StreamFacts
from kcm_auditor.tail_buffer import TailBuffer, describe_incident

log = logging.getLogger(__name__)

HEAD_ENTRIES: Final = 1000
"""The most entries between two signed heads."""

HEAD_S: Final = 60.0
"""Seconds after which a signed head is written if there are new entries."""


class Recorder:
    """The one writer of a journal. Implements the stream's ``Sink``."""

    def __init__(
        self,
        me: InstanceContext,
        trust: RosterReload,
        journal: Journal,
        book: Book,
        watch: Watch,
        clock: Clock,
        alarm: Callable[[Incident], None] = lambda _: None,
    ) -> None:
        """``alarm`` is called with incidents that other systems should learn, too."""
        self.me: Final = me
        self.trust: Final = trust
        self.journal: Final = journal
        self.ledger: Final = ChainChecker(book)
        self.watch: Final = watch
        self._clock: Final = clock
        self.recent: Final = TailBuffer()
        self._alarm: Final = alarm
        self._kept: Final = dict[str, Place]()
        self._disbelieved: Final = dict[str, bytes]()
        self.facts: Final = dict[str, StreamFacts]()
        """The latest known state of each region's stream."""
        self._head = Point(0, b"")
        self._head_at = clock.elapsed()
        self._expect()
        me.rosters.listen(lambda _: self._expect())

    def open(self) -> None:
        """Restore from the journal and note what was cut; raises ``JournalError``."""
        try:
            cuts = self.journal.open(self._restore)
        except KcmError:
            raise JournalError("the journal contains an invalid batch: verify it") from None
        for cut in cuts:
            log.warning("%d bytes of an unfinished line were cut from the journal", cut.size)
            repaired = Incident(
                incident=IncidentKind.JOURNAL_REPAIRED, first=1, last=cut.size, digest=cut.digest
            )
            self._submit([self.ledger.note(repaired)])

    def position(self, region: str) -> int:
        """Return the position up to which the region's stream is recorded."""
        return self.ledger.position(region)

    def created(self, region: str) -> str:
        """Return the creation time of the recorded stream, as the journal has it."""
        return self.ledger.book.region(region).created

    def compare(self, region: str, facts: StreamFacts) -> Verdict:
        """Compare the stream with the journal."""
        return self.ledger.compare(region, facts.created, facts.last)

    async def opened(self, region: str, facts: StreamFacts, head: bytes) -> None:
        """Record that the stream is read from now on."""
        self.noticed(region, facts)
        signed = self.signed(region, facts.made, head)
        contents = self.ledger.open_stream(region, facts.created, facts.last, signed)
        await self._submit(contents)
        # Marks of another stream, or of this one before its rollback, are not valid any more.
        self._kept.pop(region, None)
        self._keep(region, self.ledger.book.region(region).mark)

    def recorded(self, arrival: Arrival) -> bool:
        """Whether a message is the one that was recorded at its position.

        If that one is not known: whether it contains no events that are not recorded.
        """
        same = self.ledger.same(arrival)
        if same is not None:
            return same
        try:
            return self.ledger.recorded(arrival, self._verified(arrival.body))
        except Untrusted:
            return True

    async def went_back(self, region: str, first: int) -> None:
        """Record that ``first`` is another message than was recorded: all is read again."""
        await self._submit(self.ledger.went_back(region, first))
        self._kept.pop(region, None)

    def noticed(self, region: str, facts: StreamFacts) -> None:
        """Remember the state of a region's stream."""
        self.facts[region] = facts

    async def trimmed(self, region: str, statement: bytes, facts: StreamFacts) -> None:
        """Note a trim if it verifies and is about this very stream, which was opened before."""
        if self.created(region) != facts.created:
            return
        try:
            trim = self._verified_trim(region, statement)
        except Untrusted as error:
            found = sha256(statement).digest()
            if self._disbelieved.get(region) != found:
                self._disbelieved[region] = found
                self._note([_untrusted_trim(region, error.reason, found)])
            return
        if trim.trim.created != facts.made:
            return
        believed = FoundTrim(
            region, trim.trim.through, trim.trim.digest, len(trim.heads), statement
        )
        contents = self.ledger.trimmed(believed, facts.first)
        if contents:
            await self._submit(contents)

    async def take(self, arrivals: Sequence[Arrival]) -> None:
        """Record messages; returns when they are on the disk."""
        contents: list[Content] = []
        for arrival in arrivals:
            contents.extend(self._judge(arrival))
        # In the journal, the chain follows its messages: reading resumes after it.
        regions = {arrival.region: None for arrival in arrivals}
        marks = {region: self.ledger.book.region(region).mark for region in regions}
        contents.extend(self.ledger.book.passed(region) for region in regions)
        await self._submit(contents)
        for region, mark in marks.items():
            self._keep(region, mark)

    def head(self, region: str) -> Place | None:
        """Return the last mark up to which this journal has a region's stream on its disk.

        It is ``None`` while something is lost or not known: then no head may be signed.
        """
        return self._kept.get(region) if self.ledger.book.region(region).whole else None

    def signed(self, region: str, made: int, statement: bytes) -> Place:
        """Return the position of a head that this Auditor signed for the stream of ``made``.

        It is 0 if the statement is another one.
        """
        try:
            head = self.me.verifier.stream_head(statement)
        except Untrusted:
            return Place()
        same = (head.auditor, head.region, head.created) == (self.me.name, region, made)
        return Place(head.through, head.digest) if same else Place()

    def _keep(self, region: str, mark: Place | None) -> None:
        if mark is not None:
            self._kept[region] = mark

    def _verified_trim(self, region: str, statement: bytes) -> VerifiedTrim:
        try:
            trim = self.trust.verifier.trim(statement)
        except Untrusted:
            if not self.trust.refresh():
                raise
            trim = self.trust.verifier.trim(statement)
        if trim.trim.region != region:
            raise Untrusted("the trim is of another region", f"{trim.trim.region}, not {region}")
        if not trim.heads:
            raise Untrusted("the trim has no valid head of an Auditor")
        return trim

    def reachable(self, region: str, *, up: bool) -> None:
        """Note whether a region's stream can be read."""
        self._note(self.watch.reachable(region, up=up, now=self._clock.elapsed()))

    def tick(self) -> None:
        """Once a second: report silence, record counted incidents, sign a head."""
        now = self._clock.elapsed()
        self._note(self.watch.due(now))
        self._submit(self.ledger.settle(now))
        new = self.journal.point.seq - self._head.seq
        if new >= HEAD_ENTRIES or (new and now - self._head_at >= HEAD_S):
            self.sign_head()

    def sign_head(self) -> None:
        """Write a signed head, as a transparency log could record it."""
        point = self.journal.point
        statement = self.me.identity.sign(
            Kind.AUDIT_HEAD,
            AuditHead(
                auditor=self.me.name,
                seq=point.seq,
                head=point.head,
                time_ms=self._clock.unix_ms(),
            ),
        )
        self._submit([Head(statement=encode(statement))])
        self._head, self._head_at = self.journal.point, self._clock.elapsed()

    def _judge(self, arrival: Arrival) -> Iterable[Content]:
        now = self._clock.elapsed()
        try:
            batch = self._verified(arrival.body)
        except Untrusted as error:
            return self.ledger.refuse(arrival, error.reason, now)
        contents = self.ledger.take(arrival, batch, now)
        if not any(isinstance(content, Batch) for content in contents):
            return contents
        state = self.ledger.book.incarnation(batch.emitter, batch.incarnation)
        stopped = state is not None and state.stopped
        heard = self.watch.heard(batch.emitter, stopped=stopped, now=now)
        return (*contents, *map(self.ledger.note, heard))

    def _verified(self, body: bytes) -> AuditBatch:
        try:
            return self.trust.verifier.audit(body)
        except Untrusted:
            if not self.trust.refresh():
                raise
        self._expect()
        return self.trust.verifier.audit(body)

    def _expect(self) -> None:
        """Watch the instances on the roster in force."""
        self.watch.expect(self.trust.verifier.roster.instances, self._clock.elapsed())

    def _note(self, incidents: Iterable[Incident]) -> None:
        self._submit([self.ledger.note(incident) for incident in incidents])

    def _submit(self, contents: Sequence[Content]) -> asyncio.Future[None]:
        before = self.journal.point.seq
        done = self.journal.submit(contents)
        for seq, content in enumerate(contents, start=before + 1):
            self.recent.add(seq, self._clock.unix_ms(), content)
            if isinstance(content, Incident):
                log.error(
                    "incident %s: %s",
                    content.incident.value,
                    describe_incident(content),
                    extra=fields(region=content.region, sequence=seq),
                )
                self._alarm(content)
        return done

    def _restore(self, entry: Entry) -> None:
        self.ledger.book.restore(entry.content)
        self.recent.add(entry.seq, entry.time_ms, entry.content)
        if isinstance(entry.content, Head):
            self._head = Point(entry.seq, b"")


def _untrusted_trim(region: str, reason: str, digest: bytes) -> Incident:
    return Incident(
        incident=IncidentKind.UNTRUSTED, region=region, detail=f"trim: {reason}", digest=digest
    )
