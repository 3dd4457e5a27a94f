"""Operators' requests: each is signed, and each answer is signed.

Theory of operation. The work before the signature is verified is bounded: reading the envelope,
whose size and number of signatures have a limit. A request that does not verify is refused without
a signature, and counted (``kcm_runtime.audit.rejection_log``). Then the place and the deadline are
checked. A copy that is too old, or that was signed for another place, is not recorded as the
operator's request, because an attacker may have sent it. The place of a request to a Core is one
incarnation: neither another Core nor a restarted one executes a copy.

The same request gets the same answer until its deadline: a client repeats an unanswered request,
because the instance that received it may have died. A request is recorded once, and copies that
arrive while it is served wait for its answer. The answer to a request that only reads, that was
refused, or that repeats an order is made again for each copy, and is recorded again only if its
code differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import Kind
from kcm_trust.identity import digest
from kcm_trust.verify import Untrusted

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.audit.repeat_counter import Repeats, What
from kcm_runtime.host import Host
from kcm_runtime.requests import SeenRequests, check_deadline

Handler = Callable[[AdminRequest], Awaitable[Message]]
"""Returns the answer's payload; raises ``KcmError``."""

NamedHandler = Callable[[AdminRequest, str], Awaitable[Message]]
"""A handler that also gets the operator's name."""

ANY_ROLE: Final = frozenset(OperatorRole)
"""Every operator that has a role."""

ASKED_MAX: Final = 1024
"""Requests of one operator that are remembered until their deadlines, a minute at most: 17 a
second."""

ANSWER_MAX: Final = 16 * 1024
"""Bytes of an answer that is remembered with its request. A longer answer is made again for a copy
of the request: it answers a kill, which is placed once, however often it is ordered."""


REPEATED: Final = "given before"
"""The detail of the event of an order that changes nothing."""


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """The audit event of a request. An event that only ``reads`` is counted when it repeats.

    So is the event of a request that ``repeats`` an order that was executed before: nothing
    changes. Without a ``detail``, the event of a refused request has the text of the refusal.
    """

    type: EventType
    what: What
    reads: bool
    detail: str = ""
    repeats: bool = False


class AdminRules(Protocol):
    """What differs between the services that answer operators."""

    def check_place(self, subject: str, request: AdminRequest) -> None:
        """Raise ``KcmError`` unless the request was signed for this subject and instance."""

    def check_ready(self, request: AdminRequest) -> None:
        """Raise ``KcmError`` if this instance cannot serve the request now; the role fits."""

    def event(self, request: AdminRequest) -> RequestEvent:
        """Return the event of a verified request that was not served yet.

        The caller cannot choose its type.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Verb:
    roles: frozenset[OperatorRole] | None
    handler: NamedHandler


@dataclass(frozen=True, slots=True)
class _Made:
    """The outcome of a request, and its answer if a copy of the request gets the same one."""

    code: Code
    answer: bytes


class AdminEndpoint:
    """Verifies, serves, records and answers the requests for a table of nouns and verbs."""

    def __init__(self, host: Host, source: str, rules: AdminRules) -> None:
        """``source`` names the endpoint in the events of rejected requests."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._emit: Final = host.emit
        self._rules: Final = rules
        self._refusals: Final = RejectionLog(source, host.emit)
        self._repeats: Final = Repeats(host.emit)
        self._asked: Final[SeenRequests[_Made]] = SeenRequests(ASKED_MAX)
        self._running: Final[dict[bytes, asyncio.Task[bytes]]] = {}
        """Requests in progress, by digest; their number is limited by the request server."""
        self._verbs: Final[dict[tuple[str, str], _Verb]] = {}

    def serve(
        self,
        noun: str,
        verbs: Mapping[str, Handler],
        roles: frozenset[OperatorRole] | None = ANY_ROLE,
    ) -> None:
        """Serve verbs for operators that have one of ``roles``; ``None`` is for all operators."""
        self.serve_named(noun, {verb: _unnamed(verbs[verb]) for verb in verbs}, roles)

    def serve_named(
        self,
        noun: str,
        verbs: Mapping[str, NamedHandler],
        roles: frozenset[OperatorRole] | None = ANY_ROLE,
    ) -> None:
        """Serve verbs whose handlers need the operator's name."""
        for verb, handler in verbs.items():
            if (noun, verb) in self._verbs:
                raise ValueError(f"{noun} {verb} is served already")
            self._verbs[noun, verb] = _Verb(roles, handler)

    @property
    def served(self) -> Mapping[tuple[str, str], frozenset[OperatorRole] | None]:
        """The roles that may use each noun and verb; ``None`` is for all operators."""
        return {what: verb.roles for what, verb in self._verbs.items()}

    def close(self) -> None:
        """Record the repeated and refused requests that are only counted so far."""
        self._repeats.close()
        self._refusals.close()

    async def handle(self, subject: str, body: bytes, caller: str = "") -> bytes:
        """Serve one request, and return the signed answer, which may be a refusal.

        ``caller`` is the operator in whose session the request came, if it came in one.

        Raises ``forbidden`` for a request that does not verify, and ``unavailable`` if this
        instance is retired: these refusals have no signature.
        """
        if not self._me.acts:
            raise KcmError(Code.UNAVAILABLE, f"{self._me.name} is retired; ask another one")
        try:
            request, operator, roles = self._me.verifier.admin(body)
        except Untrusted as error:
            self._refusals.record(error)
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        if caller not in ("", operator):
            other = KcmError(Code.FORBIDDEN, "another operator signed the request")
            self._refusals.record(other)
            raise other
        request_digest = digest(body)
        try:
            self._rules.check_place(subject, request)
            check_deadline(request.deadline_ms, self._clock.unix_ms())
        except KcmError as error:
            self._refusals.record(error)
            return self._signed(request_digest, error.code, error.detail)
        made = self._asked.get(operator, request_digest)
        if made is not None and made.answer:
            return made.answer
        running = self._running.get(request_digest)
        if running is None:
            work = self._answer(request, operator, roles, request_digest)
            running = self._running[request_digest] = asyncio.get_running_loop().create_task(work)
            running.add_done_callback(lambda _: self._running.pop(request_digest))
        return await asyncio.shield(running)

    async def _answer(
        self,
        request: AdminRequest,
        operator: str,
        roles: frozenset[OperatorRole],
        request_digest: bytes,
    ) -> bytes:
        code, detail, payload = Code.OK, "", b""
        event = self._rules.event(request)
        try:
            payload = encode(await self._serve(request, operator, roles))
        except KcmError as error:
            code, detail = error.code, error.detail
        bounded = code is not Code.OK or event.reads or event.repeats
        made = self._asked.get(operator, request_digest)
        if made is None or made.code is not code:
            if bounded:
                said = event.detail or detail or (REPEATED if event.repeats else "")
                self._repeats.record(event.type, operator, event.what, code, said)
            else:
                self._emit(event.type, **event.what, actor=operator, detail=event.detail)
        answer = self._signed(request_digest, code, detail, payload)
        kept = _Made(code, b"" if bounded or len(answer) > ANSWER_MAX else answer)
        self._asked.add(operator, request_digest, request.deadline_ms, self._clock.unix_ms(), kept)
        return answer

    async def _serve(
        self, request: AdminRequest, operator: str, roles: frozenset[OperatorRole]
    ) -> Message:
        served = self._verbs.get((request.noun, request.verb))
        if served is None:
            raise KcmError(Code.MALFORMED, "no such noun and verb")
        if served.roles is not None and not roles & served.roles:
            has = " and ".join(sorted(role.value for role in roles)) or "none"
            takes = " or ".join(sorted(role.value for role in served.roles))
            raise KcmError(
                Code.FORBIDDEN,
                f"{request.noun} {request.verb} takes the role {takes}; your roles: {has}",
            )
        self._rules.check_ready(request)
        return await served.handler(request, operator)

    def _signed(
        self, request_digest: bytes, code: Code, detail: str, payload: bytes = b""
    ) -> bytes:
        reply = AdminReply(request=request_digest, code=code, detail=detail, payload=payload)
        return encode(self._me.identity.sign(Kind.ADMIN_REPLY, reply))


def _unnamed(handler: Handler) -> NamedHandler:
    def serve(request: AdminRequest, _operator: str) -> Awaitable[Message]:
        return handler(request)

    return serve
