"""The signed channel from an operator to the Cores and Auditors of all regions.

The broker is not trusted. A request is a signed statement that names its region, noun, verb and a
random id. The reply is a statement over the SHA-256 of exactly that request, signed by a Core *of
that region* on the roster. A reply therefore cannot be forged, replayed, or moved from another
request or region. An unsigned reply can only be reported as a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

from kcm_runtime.clock import Randomness, SystemRandomness
from kcm_runtime.ownership import Owner
from kcm_schemas import auditor, limits, subjects
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind, Signed
from kcm_trust.identity import Identity, digest
from kcm_trust.verify import Untrusted, Verifier

from kcm._internal.client_context import ClientContext
from kcm._internal.retry import repeated
from kcm._internal.rpc import Environment, ask_once, attempt_s, pause, read_reply
from kcm._internal.transport import Opener, Transport, open_nats
from kcm.errors import ServiceError, UntrustedReply, error_for

ADMIN_S: Final = 30.0
"""Seconds for an operator's request, retries included. Calls to a root key's provider are slow."""

ADMIN_WIRE_S: Final = 20.0
"""Seconds for one attempt. To create a tenant root, a Core calls a provider several times."""

M = TypeVar("M", bound=Message)


class AdminChannel:
    """Sends an operator's signed requests and verifies the replies."""

    def __init__(
        self,
        context: ClientContext,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        """Read roster and key; raises ``ContextError``. The first request to a region connects."""
        self.context: Final = context
        self.identity: Final[Identity] = context.identity()
        self.verifier: Final[Verifier] = context.verifier()
        self.around: Final = around or Environment()
        self.randomness: Final = randomness or SystemRandomness()
        self._opener: Final = opener
        self._owner: Final = Owner("the operator's client")
        self._transports: dict[str, Transport] = {}
        self._locks: Final = {region: asyncio.Lock() for region in context.regions}

    async def close(self) -> None:
        """Disconnect from all regions. After a fork, the connections belong to the parent."""
        if self._owner.elsewhere:
            return
        self._owner.close()
        transports = list(self._transports.values())
        self._transports.clear()
        await asyncio.gather(*(transport.close() for transport in transports))

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
        """Ask the Cores of a region, or its Auditor. Retry while that can help and time is left.

        With ``at``, ask that Core; a reply of another Core is not accepted. Raises
        ``ServiceError``: the signed refusal, a failure to ask, or ``UntrustedReply``.
        """
        self._owner.check()
        place = _place(region, noun, verb, at)
        until, attempt = self.around.until(deadline_s), 0
        # The transport reconnects by itself, so only requests are retried here.
        transport = await self._transport(region)
        while True:
            try:
                return await self._attempt(transport, place, payload, reply, until)
            except ServiceError as error:
                if not error.retryable or not await pause(self.around, attempt, until):
                    raise
            attempt += 1

    async def _attempt(
        self, transport: Transport, place: _Place, payload: Message, reply: type[M], until: float
    ) -> M:
        """Ask under one id; repeat the same bytes while no reply comes."""
        clock = self.around.clock
        end = clock.elapsed() + attempt_s(until - clock.elapsed(), ADMIN_WIRE_S)
        request = b""

        def build(deadline_ms: int) -> bytes:
            nonlocal request
            request = request or self._request(place, payload, deadline_ms)
            return request

        def read(body: bytes) -> tuple[M, float]:
            read_reply(Signed, body)  # raises the error of an unsigned failure
            return self._verified(body, place, request, reply), ADMIN_WIRE_S

        def ask() -> Awaitable[M]:
            left_s = end - clock.elapsed()
            return ask_once(self.around, transport.request, place.subject, build, read, left_s)

        return await repeated(ask)

    def _request(self, place: _Place, payload: Message, deadline_ms: int) -> bytes:
        request = AdminRequest(
            region=place.region,
            noun=place.noun,
            verb=place.verb,
            request_id=self.randomness.public(limits.ID_SIZE),
            deadline_ms=deadline_ms,
            payload=encode(payload),
        )
        return encode(self.identity.sign(Kind.ADMIN, request))

    def _verified(self, body: bytes, place: _Place, request: bytes, model: type[M]) -> M:
        """Return the payload of a reply that the right instance signed for this very request."""
        try:
            reply, signer = self.verifier.admin_reply(body, place.role)
        except Untrusted as error:
            raise UntrustedReply(f"the reply is not trusted: {error}") from None
        if signer.region != place.region:
            text = f"the reply is not trusted: its signer is in region {signer.region}"
            raise UntrustedReply(f"{text}, not in {place.region}")
        if place.instance not in ("", signer.instance):
            text = f"the reply is not trusted: {signer.instance} signed it"
            raise UntrustedReply(f"{text}, not {place.instance}")
        if reply.request != digest(request):
            raise UntrustedReply("the reply is not trusted: it belongs to another request")
        if reply.code is not Code.OK:
            raise error_for(reply.code, reply.detail)
        try:
            return decode(model, reply.payload)
        except KcmError:
            raise UntrustedReply("the signed reply is not of the requested type") from None

    async def _transport(self, region: str) -> Transport:
        async with self._locks[region]:
            transport = self._transports.get(region)
            if transport is None:
                address = self.context.operator_address(region)
                transport = self._transports[region] = await self._opener(address, "kcm-operator")
            return transport


@dataclass(frozen=True, slots=True)
class _Place:
    """The subject of a request, and the role and region that have to sign the reply."""

    subject: str
    role: Role
    region: str
    noun: str
    verb: str
    instance: str = ""
    """The instance that has to sign; empty: any instance of that role and region."""


def _place(region: str, noun: str, verb: str, instance: str) -> _Place:
    if instance:
        subject = subjects.admin_at(region, noun, verb, instance)
        return _Place(subject, Role.CORE, region, noun, verb, instance)
    if noun == auditor.NOUN:
        return _Place(subjects.auditor(region, verb), Role.AUDITOR, region, noun, verb)
    return _Place(subjects.admin(region, noun, verb), Role.CORE, region, noun, verb)
