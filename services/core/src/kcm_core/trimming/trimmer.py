"""Trimming of the audit stream: warn, decide from the Auditors' heads, sign, and empty.

Order of work: a signed ``trim`` is stored in the control stream by compare-and-set, so only one
Core decides at a time; the audit stream is emptied only after that. If the deciding Core ended in
between, any Core that finds the pending trim carries it out. The control stream has separate
storage, so this works also when the audit stream is full.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.audit.stream import AuditStore, StoreFacts
from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog, Subscription
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.auditor import Trim
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, VerifiedTrim

from kcm_core.trimming.policy import (
    GRAVE,
    Claim,
    Decision,
    Doubt,
    Extent,
    KnownPosition,
    Level,
    Policy,
    decide,
    judge,
    level,
    raised,
)
from kcm_core.trimming.reader import AuditReader
from kcm_core.trimming.state import Floors, TrimState

log = logging.getLogger(__name__)

ROUND_S: Final = 10.0
"""Seconds between two rounds: short enough for a stream that fills within minutes, at the cost of a
few small requests."""

SAVE_S: Final = 300.0
"""Seconds between saves of the reading position: after a crash, a Core reads this much again."""


class Trimmer:
    """One Core's part in the trimming of its region's audit stream."""

    def __init__(
        self,
        host: Host,
        *,
        control: StreamLog,
        store: AuditStore,
        state: TrimState,
        policy: Policy,
    ) -> None:
        """Raises ``ConfigError`` if the stored heads cannot be read."""
        self._me: Final = host.me
        self._named: Final = fields(region=host.me.region, stream=subjects.AUDIT_STREAM)
        self._emit: Final = host.emit
        self._clock: Final = host.clock
        self._control: Final = control
        self._store: Final = store
        self._state: Final = state
        self._policy: Final = policy
        self._refusals: Final = RejectionLog("a trim or a head", host.emit)
        self._floors = state.floors()
        self._reader: Final = AuditReader(state.reading())
        self._following: Final[Subscription] = store.follow(self._reader)
        self._heads: dict[str, bytes] = {}
        self._told: dict[str, tuple[Doubt, int]] = {}
        self._unbounded = self._vanished = False
        self._saved = host.clock.elapsed()
        self._tasks: Final = TaskSet()
        self.level = Level.ROOMY
        """The fill level of the stream at this Core's last round."""
        self.why = "nothing was looked at yet"
        """The reason why the last round trimmed nothing; empty if it did."""

    def start(self) -> None:
        """Begin, in the background: nothing waits for the audit stream."""
        self._tasks.spawn(self._run())

    async def close(self) -> None:
        """End, and save the reading position."""
        self._tasks.close()
        await self._tasks.join()
        await self._following.close()
        await self._save_reading()
        self._refusals.close()

    async def round(self) -> None:
        """Check once, and trim what may be trimmed; raises ``KcmError`` and ``OSError``."""
        entry, trim = await self._last_trim()
        claims = await self._claims()
        facts = await self._store.facts()
        self._warn(facts)
        if trim is not None and trim.trim.created != facts.created:
            trim = None
        if not self._base(facts, trim):
            return
        if trim is not None and facts.first <= trim.trim.through <= facts.last:
            if self._stands(trim):
                await self._empty(trim.trim.through, "decided before")
                return
            self._tell_trim(trim.trim.through)
        decision = await self._decide(claims, facts)
        self.why = decision.why
        if decision.through:
            await self._trim(decision, facts, entry.sequence if entry is not None else 0)

    async def _run(self) -> None:
        reading: asyncio.Task[None] | None = None
        while not self._tasks.closed:
            try:
                await self.round()
                if reading is None or (reading.done() and reading.exception() is not None):
                    # After the first round, which sets where reading begins. Nothing waits for it.
                    reading = asyncio.get_running_loop().create_task(self._following.start())
                if self._clock.elapsed() - self._saved >= SAVE_S:
                    await self._save_reading()
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                log.warning(
                    "the audit stream was not looked at: %s", describe(error), extra=self._named
                )
            await asyncio.sleep(ROUND_S)
        if reading is not None:
            reading.cancel()

    async def _last_trim(self) -> tuple[Entry | None, VerifiedTrim | None]:
        entry = await self._control.last(subjects.control_trim(self._me.region))
        if entry is None or not entry.data:
            return entry, None
        try:
            trim = self._me.verifier.trim(entry.data)
            if trim.trim.region != self._me.region:
                raise Untrusted("the trim is of another region")
        except Untrusted as error:
            self._refusals.record(error)
            return entry, None
        return entry, trim

    async def _claims(self) -> list[tuple[int, Claim]]:
        """The statements of acting Auditors about this region, each with its stream."""
        found: list[tuple[int, Claim]] = []
        self._heads = {}
        for name in self._acting():
            entry = await self._control.last(subjects.control_head(self._me.region, name))
            if entry is None or not entry.data:
                continue
            try:
                head = self._me.verifier.stream_head(entry.data)
                if (head.auditor, head.region) != (name, self._me.region):
                    raise Untrusted("the stream head has the subject of another one", head.auditor)
            except Untrusted as error:
                self._refusals.record(error)
                continue
            self._heads[name] = entry.data
            found.append((head.created, Claim(name, head.through, head.digest)))
        return found

    def _acting(self) -> list[str]:
        roster = self._me.verifier.roster.instances
        return [i.instance for i in roster if i.role is Role.AUDITOR and not i.retired]

    def _auditors(self) -> list[str]:
        """Auditors of this region, and those of other regions that were heard to follow it."""
        home = {
            i.instance for i in self._me.verifier.roster.instances if i.region == self._me.region
        }
        followers = home | self._heads.keys() | self._floors.claims.keys()
        return [name for name in self._acting() if name in followers]

    def _base(self, facts: StoreFacts, trim: VerifiedTrim | None) -> bool:
        """Whether the reader has a base; if it has none, reading restarts where it can."""
        if self._floors.created != facts.created:
            self._floors = Floors(facts.created, {})
        if self._reader.fits(facts.created, facts.first, facts.last):
            return True
        self.why = "the stream is being read"
        if trim is not None and trim.trim.through >= facts.first - 1:
            self._reader.begin(facts.created, Place(trim.trim.through, trim.trim.digest))
        elif facts.first <= 1:
            self._reader.begin(facts.created, Place())
        else:
            self._reader.forget()
            self.why = f"messages up to {facts.first - 1} vanished without a signed trim"
            if not self._vanished:
                log.error("the audit stream is not trimmed: %s", self.why, extra=self._named)
                self._emit(EventType.AUDIT_DISPUTED, code=Code.TAMPERED, detail=self.why)
            self._vanished = True
            return False
        self._vanished = False
        self._following.again()
        return False

    def _stands(self, trim: VerifiedTrim) -> bool:
        """Whether a pending trim is valid and has to be carried out."""
        known = {place.sequence: place.digest for place in self._reader.places}
        if known.get(trim.trim.through, trim.trim.digest) != trim.trim.digest:
            return False
        acting = {head.auditor for head in trim.heads} & set(self._acting())
        return len(acting) >= (self._policy.quorum or len(self._auditors()) or 1)

    async def _decide(self, claims: list[tuple[int, Claim]], facts: StoreFacts) -> Decision:
        """Decide, and save the accepted heads before the decision has any effect."""
        mine = [claim for created, claim in claims if created == facts.created]
        places = [KnownPosition(p.sequence, p.digest, p.time_ms) for p in self._reader.places]
        auditors, trimmed = self._auditors(), facts.first - 1
        good, doubts = judge(
            mine, auditors, self._floors.claims, places, trimmed=trimmed, last=facts.last
        )
        self._tell(doubts, {claim.auditor: claim for claim in mine})
        floors = raised(self._floors.claims, good)
        if floors is not None:
            kept = Floors(facts.created, floors)
            await asyncio.to_thread(self._state.save_floors, kept)
            self._floors = kept
        return decide(
            mine,
            auditors,
            self._floors.claims,
            places,
            self._policy,
            Extent(trimmed, facts.last, facts.fill),
            self._clock.unix_ms(),
        )

    async def _trim(self, decision: Decision, facts: StoreFacts, expected: int) -> None:
        trim = Trim(
            region=self._me.region,
            created=facts.created,
            through=decision.through,
            digest=decision.digest,
            issued_ms=self._clock.unix_ms(),
            heads=[self._heads[name] for name in decision.witnesses][: limits.TRIM_HEADS_MAX],
        )
        body = encode(self._me.identity.sign(Kind.TRIM, trim))
        try:
            await self._control.put(subjects.control_trim(self._me.region), body, expected=expected)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            self.why = "another Core trims"
            return
        await self._empty(decision.through, "have it: " + ", ".join(decision.witnesses))

    async def _empty(self, through: int, detail: str) -> None:
        await self._store.purge(through)
        self._reader.trimmed(through)
        self.why = ""
        log.info("the audit stream is emptied up to message %d", through, extra=self._named)
        self._emit(EventType.AUDIT_TRIMMED, count=through, detail=detail)

    def _warn(self, facts: StoreFacts) -> None:
        """Warn once when a threshold is crossed."""
        if not facts.room and not self._unbounded:
            log.error(
                "the audit stream has no bound: it can take the control stream's room",
                extra=self._named,
            )
        self._unbounded = not facts.room
        before, self.level = self.level, level(self.level, facts.fill)
        if self.level is before:
            return
        percent = int(facts.fill * 100)
        if self.level.value < before.value:
            log.info("the audit stream has room again: %d %% are used", percent, extra=self._named)
            return
        log.log(
            logging.ERROR if self.level is Level.NEARLY_FULL else logging.WARNING,
            "the audit stream is %d %% full; when it is full, data requests are refused. "
            "Not trimmed because: %s",
            percent,
            self.why or "it was, just now",
            extra=self._named,
        )
        self._emit(EventType.AUDIT_FILLING, count=percent, detail=self.why)

    def _tell(self, doubts: dict[str, Doubt], claims: dict[str, Claim]) -> None:
        """Record, once for each head, what an honest Auditor never shows."""
        grave = {
            name: (doubt, claims[name].through)
            for name, doubt in doubts.items()
            if doubt in GRAVE and name in claims
        }
        for name, found in grave.items():
            if self._told.get(name) != found:
                log.error(
                    "an Auditor %s",
                    found[0].value,
                    extra=fields(region=self._me.region, instance=name, sequence=found[1]),
                )
                self._emit(
                    EventType.AUDIT_DISPUTED,
                    actor=name,
                    code=Code.TAMPERED,
                    count=found[1],
                    detail=found[0].value,
                )
        self._told = grave

    def _tell_trim(self, through: int) -> None:
        log.error(
            "a signed trim is not carried out: it is disputed",
            extra=fields(region=self._me.region, sequence=through),
        )
        self._emit(
            EventType.AUDIT_DISPUTED,
            code=Code.TAMPERED,
            count=through,
            detail="a trim has another digest than this Core, or too few Auditors' heads",
        )

    async def _save_reading(self) -> None:
        self._saved = self._clock.elapsed()
        reading = self._reader.reading
        if reading is None:
            return
        try:
            await asyncio.to_thread(self._state.save_reading, reading)
        except OSError as error:
            log.warning(
                "how far the audit stream was read is not kept: %s",
                error.strerror,
                extra=self._named,
            )
