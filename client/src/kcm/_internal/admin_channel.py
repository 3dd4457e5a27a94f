"""The signed channel from an operator to the Cores and Auditors of all regions.

The broker is not trusted. A request is a signed statement that names its region, noun, verb, a
random id, and the one incarnation of a Core that may execute it. The reply is a statement over the
SHA-256 of exactly that request, signed by the instance that was asked. A reply therefore cannot be
forged, replayed, or moved from another request or region. Both are sealed (``core_calls``).

A request that places a hold or a lift goes to any Core of the region, in clear: it has to work when
nothing else does, and a copy changes nothing. So does one to an Auditor, which only reads. An
unsigned reply to these is ``unavailable``: another instance may serve the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from kcm_runtime.ownership import Owner
from kcm_schemas import auditor, limits, subjects
from kcm_schemas.admin.requests import CLEAR, AdminRequest
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.session import reason_claimed
from kcm_schemas.signed import Kind, Signed
from kcm_sealing.memory import SecretRandomness
from kcm_sessions.caller import Caller
from kcm_trust.identity import Identity, digest
from kcm_trust.verify import Untrusted, Verifier

from kcm._internal.client_context import ClientContext
from kcm._internal.core_calls import CoreCalls, Order, subject_of
from kcm._internal.retry import repeated
from kcm._internal.rpc import Environment, ask_once, attempt_s, pause, read_reply
from kcm._internal.session_memory import SessionRandomness
from kcm._internal.transport import Opener, Transport, open_nats
from kcm.errors import ServiceError, Unavailable, Unreached, UntrustedReply, error_for

ADMIN_S: Final = 30.0
"""Seconds for an operator's request, retries included. Calls to a root key's provider are slow."""

ADMIN_WIRE_S: Final = 20.0
"""Seconds for one attempt. To create a tenant root, a Core calls a provider several times."""

M = TypeVar("M", bound=Message)

_HERE: Final = frozenset({Code.BUSY, Code.UNAVAILABLE})
"""Signed refusals after which another Core is asked: the reason may be this Core's own."""


class AdminChannel:
    """Sends an operator's signed requests and verifies the replies."""

    def __init__(
        self,
        context: ClientContext,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
        randomness: SecretRandomness | None = None,
    ) -> None:
        """Read roster and key; raises ``ContextError``. The first request to a region connects."""
        self.context: Final = context
        self.identity: Final[Identity] = context.identity()
        self.verifier: Final[Verifier] = context.verifier()
        self.around: Final = around or Environment()
        self.randomness: Final = randomness or SessionRandomness()
        self._opener: Final = opener
        self._owner: Final = Owner("the operator's client")
        self._incarnation: Final = self.randomness.public(limits.ID_SIZE)
        self._links: dict[str, _Link] = {}
        self._opening: Final[dict[str, asyncio.Task[_Link]]] = {}

    async def close(self) -> None:
        """Disconnect from all regions. After a fork, the connections belong to the parent."""
        if self._owner.elsewhere:
            return
        self._owner.close()
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            link.calls.close()
        await asyncio.gather(*(link.transport.close() for link in links))

    async def ask(
        self,
        region: str,
        noun: str,
        verb: str,
        payload: Message,
        reply: type[M],
        *,
        at: str = "",
        deadline_s: float = ADMIN_S,
    ) -> M:
        """Ask a Core of a region, or its Auditor. Retry while that can help and time is left.

        With ``at``, ask that Core. Raises ``ServiceError``: the signed refusal, a failure to ask,
        or ``UntrustedReply``.
        """
        self._owner.check()
        place = _place(region, noun, verb)
        until, attempt = self.around.until(deadline_s), 0
        # The transport reconnects by itself, so only requests are retried here.
        link = await self._link_within(region, deadline_s)
        order = Order(noun, verb, partial(self._request, place, payload), at)
        while True:
            try:
                if place.subject:
                    return await self._attempt(link.transport, place, payload, reply, until)
                return await self._call(link.calls, order, place, reply, until)
            except ServiceError as error:
                # A Core that did not reply may execute the same order at the same time.
                again = error.code is Code.CONFLICT and order.pending(self.around.clock.unix_ms())
                again = again or error.retryable
                if not again or not await pause(self.around, attempt, until):
                    raise
            attempt += 1

    async def _call(
        self, calls: CoreCalls, order: Order, place: _Place, reply: type[M], until: float
    ) -> M:
        """Ask one Core, and another one if that one does not take the request."""
        now = self.around.clock.elapsed()
        answer = await calls.ask(order, now + attempt_s(until - now, ADMIN_WIRE_S))
        try:
            return self._verified(answer.reply, place, answer.request, reply, answer.core)
        except ServiceError as error:
            if error.code in _HERE:
                calls.cannot(answer.core, order)
            raise

    async def _attempt(
        self, transport: Transport, place: _Place, payload: Message, reply: type[M], until: float
    ) -> M:
        """Ask in clear, under one id; repeat the same bytes while no reply comes."""
        clock = self.around.clock
        end = clock.elapsed() + attempt_s(until - clock.elapsed(), ADMIN_WIRE_S)
        request = b""

        def build(deadline_ms: int) -> bytes:
            nonlocal request
            request = request or self._request(place, payload, None, None, deadline_ms)
            return request

        def read(body: bytes) -> tuple[M, float]:
            try:
                read_reply(Signed, body)
            except ServiceError as error:
                raise _unsigned(error) from None
            return self._verified(body, place, request, reply), ADMIN_WIRE_S

        def ask() -> Awaitable[M]:
            left_s = end - clock.elapsed()
            return ask_once(self.around, transport.request, place.subject, build, read, left_s)

        return await repeated(ask)

    def _request(
        self,
        place: _Place,
        payload: Message,
        instance: str | None,
        incarnation: bytes | None,
        deadline_ms: int,
    ) -> bytes:
        request = AdminRequest(
            region=place.region,
            noun=place.noun,
            verb=place.verb,
            instance=instance,
            incarnation=incarnation,
            request_id=self.randomness.public(limits.ID_SIZE),
            deadline_ms=deadline_ms,
            payload=encode(payload),
        )
        return encode(self.identity.sign(Kind.ADMIN, request))

    def _verified(
        self, body: bytes, place: _Place, request: bytes, model: type[M], core: str = ""
    ) -> M:
        """Return the payload of a reply that the right instance signed for this very request.

        Without ``core``, that is any instance of the place's role and region.
        """
        try:
            reply, signer = self.verifier.admin_reply(body, place.role)
        except Untrusted as error:
            raise UntrustedReply(f"the reply is not trusted: {error}") from None
        if signer.region != place.region:
            text = f"the reply is not trusted: its signer is in region {signer.region}"
            raise UntrustedReply(f"{text}, not in {place.region}")
        if core not in ("", signer.instance):
            text = f"the reply is not trusted: {signer.instance} signed it"
            raise UntrustedReply(f"{text}, not {core}")
        if reply.request != digest(request):
            raise UntrustedReply("the reply is not trusted: it belongs to another request")
        if reply.code is not Code.OK:
            raise error_for(reply.code, reply.detail)
        try:
            return decode(model, reply.payload)
        except KcmError:
            raise UntrustedReply("the signed reply is not of the requested type") from None

    async def connect(self, region: str) -> None:
        """Connect to a region, before anything is sent there; raises ``ServiceError``."""
        self._owner.check()
        await self._link_within(region, ADMIN_S)

    async def _link_within(self, region: str, deadline_s: float) -> _Link:
        try:
            async with asyncio.timeout(deadline_s):
                return await self._link(region)
        except TimeoutError:
            raise Unreached("no connection to the broker in time") from None

    async def _link(self, region: str) -> _Link:
        """Return the connection to a region. All requests wait for the same attempt.

        A request whose time is over does not end the attempt: one that comes before its end waits
        for it, too.
        """
        if region in self._links:
            return self._links[region]
        task = self._opening.get(region)
        if task is None:
            task = self._opening[region] = asyncio.ensure_future(self._open(region))
            task.add_done_callback(partial(self._opened, region))
        return await asyncio.shield(task)

    def _opened(self, region: str, task: asyncio.Task[_Link]) -> None:
        """End an attempt: only requests that waited for it get its outcome."""
        self._opening.pop(region, None)
        if not task.cancelled():
            task.exception()  # it may have no one left to get it

    async def _open(self, region: str) -> _Link:
        transport = await self._opener(self.context.operator_address(region), "kcm-operator")
        clock, randomness = self.around.clock, self.randomness
        calls = CoreCalls(self._caller(region), transport.request, clock, randomness)
        link = self._links[region] = _Link(transport, calls)
        return link

    def _caller(self, region: str) -> Caller:
        return Caller(
            name=self.identity.name,
            region=region,
            incarnation=self._incarnation,
            sign=self.identity.sign_raw,
            verifier=lambda: self.verifier,
            listen=_never,
            peers=Role.CORE,
            subject_of=subject_of,
        )


@dataclass(frozen=True, slots=True)
class _Link:
    """A connection to a region, and the calls to the Cores there."""

    transport: Transport
    calls: CoreCalls


@dataclass(frozen=True, slots=True)
class _Place:
    """What a request is for, and the role and region that have to sign the reply.

    ``subject`` is that of a request in clear; it is empty for one that names its Core.
    """

    subject: str
    role: Role
    region: str
    noun: str
    verb: str


def _unsigned(error: ServiceError) -> ServiceError:
    """Return what a failure without a signature means: another instance may serve the request.

    Any client of the broker can send one, so of its text only a reason of the protocol is shown.
    """
    if error.code is Code.BUSY:
        return error_for(Code.BUSY)
    why = reason_claimed(error.detail) or "the logs of the region's instances say why"
    return Unavailable(f"an instance refuses without a signature ({error.code.value}): {why}")


def _place(region: str, noun: str, verb: str) -> _Place:
    if noun == auditor.NOUN:
        return _Place(subjects.auditor(region, verb), Role.AUDITOR, region, noun, verb)
    in_clear = (noun, verb) in CLEAR
    subject = subjects.admin(region, noun, verb) if in_clear else ""
    return _Place(subject, Role.CORE, region, noun, verb)


def _never(_changed: Callable[[frozenset[str]], None]) -> None:
    """The roster of a context does not change while it is used."""
