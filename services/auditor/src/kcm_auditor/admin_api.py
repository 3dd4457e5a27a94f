"""The Auditor's API for operators: signed requests in, signed replies out.

Every operator on the roster may ask: the journal contains names and numbers, no keys and no
payloads. Requests are recorded: the first one of an operator at once, those of the minute after it
as one event with their number, and a copy of one not again.
"""

from __future__ import annotations

from typing import Final, Literal

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.audit.repeat_counter import Repeats
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.requests import Asked, check_deadline
from kcm_schemas import subjects
from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.audit import EventType
from kcm_schemas.auditor import (
    NOUN,
    AuditorStatus,
    EmitterStatus,
    FollowedRegion,
    TailPage,
    TailQuery,
)
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import TEXT, Code, KcmError
from kcm_schemas.roster import Instance
from kcm_schemas.signed import Kind
from kcm_trust.identity import digest
from kcm_trust.verify import Untrusted

from kcm_auditor.heads import SignedHeads
from kcm_auditor.recorder import Recorder
from kcm_auditor.sink import StreamFacts

State = Literal["alive", "silent", "stopped", "never", "unfollowed"]


ASKED_MAX: Final = 1024
"""Requests of one operator that are remembered until their deadlines, a minute at most: a client
that follows the journal asks once a second."""


class AdminApi:
    """Handles ``kcm.v1.<region>.auditor.<verb>``."""

    def __init__(
        self,
        membership: InstanceContext,
        recorder: Recorder,
        emit: Emit,
        regions: tuple[str, ...],
        clock: Clock,
        signed: SignedHeads,
    ) -> None:
        self._signed: Final = signed
        self._membership: Final = membership
        self._recorder: Final = recorder
        self._refusals: Final = RejectionLog("auditor", emit)
        self._reads: Final = Repeats(emit)
        self._asked: Final[Asked[Code]] = Asked(ASKED_MAX)
        self._regions: Final = regions
        self._clock: Final = clock

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Answer one request; raises ``KcmError`` if it is not trusted."""
        self._recorder.trust.refresh()
        if not self._membership.acts:
            raise KcmError(Code.UNAVAILABLE, f"{self._membership.name} is retired; ask another one")
        try:
            request, operator, _roles = self._recorder.trust.verifier.admin(body)
        except Untrusted as error:
            self._refusals.record(error)
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        what, now = digest(body), self._clock.unix_ms()
        try:
            self._check(request, subjects.read_auditor(subject), now)
        except KcmError as error:
            self._refusals.record(error)
            return self._signed_reply(what, error.code, error.detail)
        try:
            payload, code, detail = encode(self._answer(request)), Code.OK, TEXT[Code.OK]
        except KcmError as error:
            payload, code, detail = b"", error.code, error.detail
        if self._asked.get(operator, what) is not code:
            self._reads.record(EventType.AUDIT_READ, operator, {}, code, request.verb)
        self._asked.add(operator, what, request.deadline_ms, now, code)
        return self._signed_reply(what, code, detail, payload)

    def close(self) -> None:
        """Record the requests that are only counted so far."""
        self._refusals.close()
        self._reads.close()

    def _signed_reply(self, what: bytes, code: Code, detail: str, payload: bytes = b"") -> bytes:
        reply = AdminReply(request=what, code=code, detail=detail, payload=payload)
        return encode(self._membership.identity.sign(Kind.ADMIN_REPLY, reply))

    def _check(self, request: AdminRequest, verb: str, now_ms: int) -> None:
        if request.region != self._membership.region:
            raise KcmError(Code.WRONG_REGION)
        if (request.noun, request.verb) != (NOUN, verb):
            raise KcmError(Code.FORBIDDEN, "the request was signed for another subject")
        check_deadline(request.deadline_ms, now_ms)

    def _answer(self, request: AdminRequest) -> Message:
        match request.verb:
            case "status":
                return self._status()
            case "tail":
                return self._tail(decode(TailQuery, request.payload))
            case _:
                raise KcmError(Code.MALFORMED, "an Auditor answers to status and tail")

    def _tail(self, query: TailQuery) -> TailPage:
        recent = self._recorder.recent
        return TailPage(
            auditor=self._membership.name,
            oldest=recent.oldest,
            entries=recent.page(query.limit, query.before),
        )

    def _status(self) -> AuditorStatus:
        recorder = self._recorder
        book, point = recorder.ledger.book, recorder.journal.point
        return AuditorStatus(
            auditor=self._membership.name,
            time_ms=self._clock.unix_ms(),
            seq=point.seq,
            head=point.head,
            events=book.events,
            incidents=book.incidents,
            segment=recorder.journal.segment,
            regions=[self._region(region) for region in self._regions],
            emitters=[self._emitter_status(i) for i in recorder.trust.verifier.roster.instances],
        )

    def _region(self, region: str) -> FollowedRegion:
        state = self._recorder.ledger.book.region(region)
        facts = self._recorder.facts.get(region, StreamFacts("", 0))
        lost = state.lost or (0, 0)
        return FollowedRegion(
            region=region,
            reachable=self._recorder.watch.is_up(region),
            position=state.position,
            first=facts.first,
            used=facts.used,
            room=facts.room,
            signed=self._signed.through(region, facts.made),
            trimmed=state.trimmed,
            witnesses=state.witnesses,
            lost_first=lost[0],
            lost_last=lost[1],
        )

    def _emitter_status(self, entry: Instance) -> EmitterStatus:
        incarnation = self._recorder.ledger.book.current(entry.instance)
        state: State
        if entry.region not in self._regions:
            state = "unfollowed"
        elif self._recorder.watch.is_silent(entry.instance):
            state = "silent"
        elif incarnation is None:
            state = "never"
        else:
            state = "stopped" if incarnation.stopped else "alive"
        return EmitterStatus(
            emitter=entry.instance,
            role=entry.role,
            region=entry.region,
            state=state,
            incarnation=incarnation.incarnation if incarnation else b"",
            last_seq=incarnation.chain.next_seq - 1 if incarnation else 0,
            last_ms=incarnation.last_ms if incarnation else 0,
        )
