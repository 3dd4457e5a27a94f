"""A region's stream that is trimmed, and starts of an Auditor beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kcm_auditor.arrivals import Arrival
from kcm_auditor.journal.format import Incident
from kcm_auditor.journal.writer import Journal
from kcm_auditor.liveness import Watch
from kcm_auditor.positions import Book
from kcm_auditor.recorder import Recorder
from kcm_auditor.roster_reload import RosterReload
from kcm_auditor.sink import StreamFacts
from kcm_runtime.audit.stream_chain import Place
from kcm_schemas.auditor import StreamHead, Trim
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.audit_rig import Emitting, FakeClock, System, event
from tests.unit.journal_rig import with_auditor

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
        await self.recorder.opened("eu", stream.facts, b"")
        await self.look(stream, trim)

    async def look(self, stream: Stream, trim: bytes | None = None) -> None:
        if trim is not None:
            await self.recorder.trimmed("eu", trim, stream.facts)
        await self.recorder.take(stream.arrivals(self.recorder.position("eu")))

    def incidents(self) -> list[str]:
        return [entry.incident for entry in self.recorder.recent.page(256, 0) if entry.incident]

    async def end(self) -> None:
        await self.recorder.journal.close()


def incarnation(
    system: System, directory: str = "journal", segment_bytes: int = 1 << 26
) -> Incarnation:
    clock, book, alarms = FakeClock(), Book("auditor"), list[Incident]()
    journal = Journal(system.directory / directory, clock, book.positions, segment_bytes)
    trust = RosterReload(system.rosters(), system.write_roster())
    recorder = Recorder(
        system.instance_context("auditor", b"a" * 16),
        trust,
        journal,
        book,
        Watch(["eu"], clock.elapsed()),
        clock,
        alarms.append,
    )
    recorder.open()
    return Incarnation(recorder, alarms)


def with_two_auditors(path: Path) -> System:
    """A region with a Gateway, a Core and two Auditors."""
    system = with_auditor(path)
    system.add("core", Role.CORE)
    system.add("other", Role.AUDITOR)
    return system


def filled(system: System) -> Stream:
    """The audit stream of a system, with 150 messages."""
    stream = Stream(system)
    stream.fill(150)
    return stream
