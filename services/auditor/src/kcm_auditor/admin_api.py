"""The Auditor's API for operators: signed requests in, signed replies out.

Every operator on the roster may ask: the journal contains names and numbers, no keys and no
payloads. Requests are recorded: the first one of an operator at once, those of the minute after it
as one event with their number, and a copy of one not again.
"""

from __future__ import annotations

from typing import Final, Literal

from kcm_runtime.admin_endpoint import AdminEndpoint, RequestEvent
from kcm_runtime.host import Host
from kcm_schemas import subjects
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.audit import EventType
from kcm_schemas.auditor import (
    NOUN,
    AuditorStatus,
    EmitterStatus,
    FollowedRegion,
    TailPage,
    TailQuery,
)
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance

from kcm_auditor.heads import SignedHeads
from kcm_auditor.recorder import Recorder
from kcm_auditor.sink import StreamFacts

State = Literal["alive", "silent", "stopped", "never", "unfollowed"]


class AuditorRules:
    """Implements ``kcm_runtime.admin_endpoint.AdminRules`` for an Auditor."""

    def __init__(self, region: str) -> None:
        self._region: Final = region

    def check_place(self, subject: str, request: AdminRequest) -> None:
        """Raise ``wrong_region``, ``forbidden``, or ``malformed`` for a subject of another form."""
        verb = subjects.read_auditor(subject)
        if request.region != self._region:
            raise KcmError(Code.WRONG_REGION)
        if (request.noun, request.verb) != (NOUN, verb):
            raise KcmError(Code.FORBIDDEN, "the request was signed for another subject")

    def check_ready(self, request: AdminRequest) -> None:
        """Accept every request: the journal can always be read."""

    def event(self, request: AdminRequest) -> RequestEvent:
        """Return the event, which names the verb."""
        return RequestEvent(EventType.AUDIT_READ, {}, reads=True, detail=request.verb)


class AdminApi:
    """Handles ``kcm.v1.<region>.auditor.<verb>``."""

    def __init__(
        self, host: Host, recorder: Recorder, regions: tuple[str, ...], signed: SignedHeads
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._recorder: Final = recorder
        self._regions: Final = regions
        self._signed: Final = signed
        self._endpoint: Final = AdminEndpoint(host, "auditor", AuditorRules(host.me.region))
        verbs = {"status": self._status, "tail": self._tail}
        self._endpoint.serve(NOUN, verbs, roles=None)

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Answer one request, by the newest roster; raises ``KcmError`` if it is not trusted."""
        self._recorder.trust.refresh()
        return await self._endpoint.handle(subject, body)

    def close(self) -> None:
        """Record the requests that are only counted so far."""
        self._endpoint.close()

    async def _tail(self, request: AdminRequest) -> Message:
        query = decode(TailQuery, request.payload)
        recent = self._recorder.recent
        return TailPage(
            auditor=self._me.name,
            oldest=recent.oldest,
            entries=recent.page(query.limit, query.before),
        )

    async def _status(self, _request: AdminRequest) -> Message:
        recorder = self._recorder
        book, point = recorder.ledger.book, recorder.journal.point
        return AuditorStatus(
            auditor=self._me.name,
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
