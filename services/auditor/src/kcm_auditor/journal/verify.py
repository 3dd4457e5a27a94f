"""Verification of a journal offline, without the Auditor.

The chain alone shows a changed, missing, added or moved line, and a cut within. It cannot show that
the *end* is missing, or that everything was rewritten. For that, compare with an anchor, which is a
head that was stored elsewhere (an Auditor's status reply has one), and give the roster's verifier,
which verifies the signature of every batch and head.

Missing events follow from the batches alone, because their emitters number them. The Auditor must
have recorded an incident for each gap; a gap without one is a problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_runtime.audit.event_chain import Chain
from kcm_schemas.audit import AuditBatch
from kcm_schemas.auditor import AuditHead, Trim
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.signed import read_signed
from kcm_trust.verify import Untrusted, Verifier

from kcm_auditor.journal.format import (
    START,
    BadLine,
    Batch,
    Content,
    Entry,
    Head,
    Incident,
    IncidentKind,
    Positions,
    Trimmed,
    read,
)
from kcm_auditor.journal.segments import JournalError, first_of, lines_of, list_segments
from kcm_auditor.positions import Book

PROBLEMS_MAX: Final = 100
"""Problems that are listed; a journal with more of them needs no longer list."""

GONE_MAX: Final = 1000
"""Runs of missing events that are listed; all are counted."""


_HOLES: Final = frozenset({IncidentKind.GAP, IncidentKind.DROPPED})


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that was stored elsewhere: entry ``seq`` had this hash."""

    seq: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Gone:
    """Events of one incarnation that never reached the journal, from ``first`` to ``last``."""

    emitter: str
    incarnation: bytes
    first: int
    last: int
    dropped: bool
    """Whether the emitter itself reports that it dropped them; otherwise it had signed them."""

    def __str__(self) -> str:
        how = "dropped by their emitter" if self.dropped else "signed, and lost in transit"
        which = f"{self.emitter}, incarnation {self.incarnation.hex()}"
        return f"{which}: events {self.first} to {self.last}, {how}"


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a journal. ``head`` is the last hash in hexadecimal; no problems means sound.

    ``gone`` are the first runs of missing events; ``gone_events`` counts all of them.
    """

    entries: int
    events: int
    incidents: int
    head: str
    problems: tuple[str, ...]
    gone: tuple[Gone, ...] = ()
    gone_events: int = 0

    @property
    def sound(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


@dataclass(slots=True)
class _Check:
    verifier: Verifier | None
    anchor: Anchor | None
    book: Book = field(default_factory=lambda: Book(""))
    seq: int = 0
    head: bytes = START
    entries: int = 0
    anchored: bool = False
    problems: list[str] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    gone_events: int = 0
    named: tuple[str | None, bytes, int, int] | None = None
    """The gap that the last entry names: the Auditor writes it right before the batch."""

    def problem(self, where: str, what: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{where}: {what}")

    def line(self, where: str, line: bytes, *, begins: bool) -> None:
        try:
            entry, digest = read(line)
        except BadLine as error:
            self.problem(where, str(error))
            return
        if (entry.seq, entry.previous) != (self.seq + 1, self.head.hex()):
            self.problem(where, f"entry {entry.seq} does not follow entry {self.seq}")
        if begins != isinstance(entry.content, Positions):
            self.problem(where, "a segment begins with the positions, and only a segment does")
        self._content(where, entry)
        # Continue from this line's own numbers, so that one break is one problem.
        self.seq, self.head = entry.seq, digest
        self.entries += 1
        if self.anchor is not None and self.anchor.seq == entry.seq:
            self.anchored = self.anchor.head == digest

    def _content(self, where: str, entry: Entry) -> None:
        content = entry.content
        try:
            match content:
                case Batch():
                    self._hole(where, self._signature(content.statement))
                case Head():
                    self._head(where, content)
                case Positions():
                    self._positions(where, content, first=entry.seq == 1)
                case Trimmed():
                    self._trim(content.statement)
                case Incident(incident=IncidentKind.TRIM_DISPUTED) if content.statement:
                    self._trim(content.statement)
                case Incident() if content.statement:
                    self._signature(content.statement)
                case _:
                    pass
            self._name(content)
            self.book.restore(content)
        except (KcmError, Untrusted, ValueError):
            self.problem(where, "a statement is not valid: changed, or of an unknown signer")

    def _signature(self, statement: bytes) -> AuditBatch:
        if self.verifier is None:
            return decode(AuditBatch, read_signed(statement).body)
        return self.verifier.audit(statement)

    def _name(self, content: Content) -> None:
        if isinstance(content, Incident) and content.incident in _HOLES:
            self.named = (content.emitter, content.incarnation, content.first, content.last)
        elif isinstance(content, Batch):
            self.named = None

    def _hole(self, where: str, batch: AuditBatch) -> None:
        """Report the gap between a batch and the previous one of its incarnation."""
        state = self.book.incarnation(batch.emitter, batch.incarnation)
        chain = state.chain if state is not None else Chain()
        if batch.first <= chain.next_seq:
            return
        span = (chain.next_seq, batch.first - 1)
        gone = Gone(batch.emitter, batch.incarnation, *span, dropped=batch.previous == chain.head)
        self.gone_events += span[1] - span[0] + 1
        if len(self.gone) < GONE_MAX:
            self.gone.append(gone)
        if self.named != (batch.emitter, batch.incarnation, *span):
            self.problem(where, f"no incident names the missing events: {gone}")

    def _trim(self, statement: bytes) -> None:
        if self.verifier is None:
            decode(Trim, read_signed(statement).body)
        else:
            self.verifier.trim(statement)

    def _head(self, where: str, content: Head) -> None:
        if self.verifier is None:
            head = decode(AuditHead, read_signed(content.statement).body)
        else:
            head = self.verifier.audit_head(content.statement)
        if (head.seq, head.head) != (self.seq, self.head):
            self.problem(where, "the signed head is not the one of the entries before it")

    def _positions(self, where: str, content: Positions, *, first: bool) -> None:
        # The position of a stream may be ahead of its entries: duplicates leave none.
        found = self.book.positions()
        said = (content.events, content.incidents, content.incarnations)
        if not first and said != (found.events, found.incidents, found.incarnations):
            self.problem(where, "the positions are not what the entries before them say")


def verify(
    directory: Path, verifier: Verifier | None = None, anchor: Anchor | None = None
) -> Report:
    """Verify a whole journal; never raises for its problems.

    ``verifier`` verifies signatures, too (use a roster that has all signers). ``anchor`` must be in
    the journal, so that a missing end is detected.
    """
    check = _Check(verifier, anchor)
    try:
        segments = list_segments(directory)
    except JournalError as error:
        segments = []
        check.problem(str(directory), str(error))
    if not segments:
        check.problem(str(directory), "there is no segment")
    for path in segments:
        if first_of(path) != check.seq + 1:
            check.problem(path.name, f"the segment does not follow entry {check.seq}")
        if not path.stat().st_size:
            check.problem(path.name, "the segment is empty")
        for number, line in enumerate(lines_of(path), start=1):
            check.line(f"{path.name}:{number}", line, begins=number == 1)
    for region, (first, last) in check.book.losses.items():
        check.problem(
            f"region {region}",
            f"journal-lost: messages {first} to {last} were trimmed and are not in this journal; "
            "take another Auditor's journal or an archive, or accept the loss (docs/audit.md)",
        )
    if anchor is not None and not check.anchored:
        check.problem("anchor", f"entry {anchor.seq} with that hash is not in the journal")
    return Report(
        check.entries, check.book.events, check.book.incidents, check.head.hex(),
        tuple(check.problems), tuple(check.gone), check.gone_events,
    )  # fmt: skip
