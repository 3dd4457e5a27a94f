"""An application's sealed requests to Gateways of a region; it takes the place of a transport.

The channel holds sessions with two Gateways. To decrypt, it also holds sessions with Cores, and a
request has tags for them (``core_asks``). A request goes to one of them, and to the other one if
that one cannot be reached or does not take it. What a Gateway sealed is returned like its reply
without a seal: a refusal as an encoded ``Failure``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from kcm_runtime.clock import Clock
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects, limits
from kcm_schemas.asks import Ask
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.data_subjects import CARRIED, DataSubject
from kcm_schemas.roster import Role
from kcm_schemas.session import SealedRequest, request_clear
from kcm_sealing.memory import SecretRandomness
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.replies import Replies
from kcm_sessions.session_opener import Elsewhere, NotOpened, PeerSession
from kcm_trust.identity import Identity

from kcm._internal.core_asks import AsksEnded, CoreAsks
from kcm._internal.known_roster import KnownRoster
from kcm._internal.session_memory import SessionEnded, SessionMemory
from kcm._internal.transport import Transport
from kcm.errors import NotAccepted

_STRANGE: Final = (
    "a Gateway opens no session for this application, or forgets it at once: compare the clocks of"
    " both, and look whether the Gateway restarts again and again"
)


TRIES_MAX: Final = 3
"""Times that a request to decrypt is sent: a Core that started again knows no session. If the next
try does not help, another Gateway gets the last one: the first may lie."""


class SealedChannel:
    """Implements ``Transport`` for the subjects of ``data_subjects.gateway``."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity,
        region: str,
        roster: KnownRoster,
        clock: Clock,
        randomness: SecretRandomness,
    ) -> None:
        self._transport: Final = transport
        self._roster: Final = roster
        self._region: Final = region
        self._clock: Final = clock
        self._random: Final = randomness
        self._tasks: Final = TaskSet()
        me = Caller(
            name=identity.name,
            region=region,
            incarnation=randomness.public(limits.ID_SIZE),
            sign=identity.sign_raw,
            verifier=lambda: roster.verifier,
            listen=roster.listen,
            peers=Role.GATEWAY,
            subject_of=data_subjects.gateway_session,
            told=self._told,
            held=roster.held,
        )
        self._sessions: Final = PeerSessions(
            transport.request, me, clock, randomness, SessionMemory
        )
        self._replies: Final = Replies(self._sessions, _STRANGE)
        self._cores: Final = CoreAsks(me, self._carry, clock, randomness)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send a request under a seal, and return what the Gateway sealed.

        Raises ``unavailable`` if no Gateway could be reached, and ``deadline_exceeded``.
        """
        try:
            return await self._request(data_subjects.read_data(subject), body, timeout_s, _no_asks)
        except _Reached as error:
            return _as_reply(error)

    async def decrypt(
        self, names: Sequence[bytes], subject: str, body: bytes, timeout_s: float
    ) -> bytes:
        """Send a request to decrypt, and ask Cores for its data keys: 76 bytes each, in order."""
        try:
            return await self._decrypt(names, data_subjects.read_data(subject), body, timeout_s)
        except _Reached as error:
            return _as_reply(error)

    async def _decrypt(
        self, names: Sequence[bytes], asked: DataSubject, body: bytes, timeout_s: float
    ) -> bytes:
        until = self._clock.elapsed() + timeout_s
        doubted, without, before = False, list[str](), None
        for last in (False,) * (TRIES_MAX - 1) + (True,):
            sessions = await self._core_sessions(until) if names else []
            left, used = until - self._clock.elapsed(), list[str]()
            asks = partial(self._asks, used, sessions, asked=asked, names=names, within_s=left)
            try:
                return await self._request(asked, body, left, asks, without)
            except AsksEnded:
                continue
            except _Reached as error:
                if last or error.code is not Code.UNKNOWN_ASK:
                    raise
                before = error
            except KcmError as error:
                raise before or error from None
            helps = not doubted and self._cores.doubt(sessions)
            doubted = True
            if not helps:  # the Gateway may lie
                self._sessions.failed(used[-1])
                without = used[-1:]
                if not self._sessions.others(without):
                    raise before
        raise KcmError(Code.UNKNOWN_ASK)

    async def _core_sessions(self, until: float) -> list[PeerSession]:
        """Return open sessions with Cores.

        Raises what a Gateway replied in place of a Core, if it carries nothing.
        """
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.elapsed())):
                return await self._cores.sessions()
        except TimeoutError:
            raise KcmError(Code.DEADLINE_EXCEEDED) from None
        except NotOpened as error:
            raise _not_accepted("Core", [error]) from None
        except Elsewhere as error:
            raise error.error from None

    def _asks(
        self,
        used: list[str],
        sessions: Sequence[PeerSession],
        *,
        gateway: str,
        asked: DataSubject,
        names: Sequence[bytes],
        within_s: float,
    ) -> list[Ask]:
        used.append(gateway)
        return self._cores.asks(sessions, gateway, asked, names, within_s)

    async def _carry(self, core: str, verb: str, body: bytes, timeout_s: float) -> bytes:
        """Have a Gateway pass on what begins a session with a Core; raises what it replies."""
        return await self._request(DataSubject(CARRIED, core, verb), body, timeout_s, _no_asks)

    async def _request(
        self,
        asked: DataSubject,
        body: bytes,
        timeout_s: float,
        asks: AsksOf,
        without: Sequence[str] = (),
    ) -> bytes:
        """Return the reply of a Gateway; raises ``_Reached`` for what one refused."""
        until = self._clock.elapsed() + timeout_s
        if self._roster.old:
            self._tasks.spawn(self._roster.refresh())
        refused: dict[str, Elsewhere] = {}
        forgotten: set[str] = set()
        reason = ""
        while True:
            left = until - self._clock.elapsed()
            if left <= 0:
                raise KcmError(Code.DEADLINE_EXCEEDED)
            try:
                return await self._exchange({*refused, *without}, asked, body, left, asks)
            except Elsewhere as error:
                if error.code is Code.UNKNOWN_SESSION and error.peer not in forgotten:
                    forgotten.add(error.peer)
                    continue
                refused[error.peer] = error
            except SessionEnded:
                continue
            except _NoGateway as error:
                reason = str(error)
                break
            if not self._sessions.others({*refused, *without}):
                break
        raise await self._failure(list(refused.values()), reason)

    async def close(self) -> None:
        """Wipe the keys of the sessions, and disconnect."""
        self._tasks.close()
        self._cores.close()
        self._sessions.close()
        await self._transport.close()

    async def _exchange(
        self,
        without: set[str],
        asked: DataSubject,
        body: bytes,
        timeout_s: float,
        asks: AsksOf,
    ) -> bytes:
        try:
            session = await self._sessions.choose(without)
        except Elsewhere:
            raise
        except KcmError as error:
            raise _NoGateway(error.detail) from None
        sent, counter = self._clock.elapsed(), session.begin()
        try:
            info, tags = session.keys.info, asks(gateway=session.peer)
            names = (asked.operation, asked.tenant, asked.service)
            clear = request_clear(self._region, names, info.caller, tags)
            nonce = self._random.public(limits.NONCE_SIZE)
            request = SealedRequest(
                v=1,
                caller=info.caller,
                session_id=info.session_id,
                counter=counter,
                asks=tags,
                sealed=session.keys.seal_request(counter, clear, memoryview(body), nonce),
            )
            message = encode(request)
            subject = data_subjects.gateway_at(self._region, session.peer, *names)
            try:
                answer = await self._transport.request(subject, message, timeout_s)
            except KcmError as error:
                raise self._replies.unreached(session, error, sent) from None
            try:
                digest = session.keys.request_digest(counter, clear)
                return self._replies.read(session, answer, digest, _room).tobytes()
            except Elsewhere:
                raise
            except KcmError as error:  # the Gateway sealed it
                raise _Reached(error.code, error.detail) from None
        finally:
            session.end()

    async def _failure(self, refused: list[Elsewhere], reason: str) -> KcmError:
        """Return the refusal of a Gateway that was reached, or why none was.

        ``reason`` says why no Gateway was asked, if none was.

        The roster may have changed: the next request uses the one that a Gateway has now.
        """
        await self._roster.refresh()
        if not refused:
            return KcmError(Code.UNAVAILABLE, reason)
        answered = [error for error in refused if not error.away]
        if not answered:
            return refused[-1].error
        unopened = [error for error in answered if isinstance(error, NotOpened)]
        if len(unopened) == len(answered):
            return _not_accepted("Gateway", unopened)
        if answered[0].code is Code.UNKNOWN_SESSION:
            return _Reached(Code.UNAVAILABLE, _STRANGE)
        return _Reached(answered[0].code, answered[0].detail)

    def _told(self, gateway: str, version: int) -> None:
        """A Gateway acts by this version of the roster; it sealed that, so no broker hides it."""
        if version > self._roster.verifier.roster.version:
            self._tasks.spawn(self._roster.ask(gateway))


class AsksOf(Protocol):
    """Makes the tags of a request for the Gateway that gets it."""

    def __call__(self, *, gateway: str) -> list[Ask]:
        """Return them."""
        ...


def _no_asks(*, gateway: str) -> list[Ask]:  # noqa: ARG001 - as AsksOf has it
    return []


def _not_accepted(peer: str, refused: Sequence[NotOpened]) -> NotAccepted:
    """Return the error of an application for which no session is opened, with what is claimed."""
    by_claim: dict[str, list[str]] = {}
    for one in sorted(refused, key=lambda one: one.peer):
        by_claim.setdefault(one.claim or "nothing known; see the log there", []).append(one.peer)
    said = "; ".join(f"{', '.join(peers)}: {claim}" for claim, peers in by_claim.items())
    return NotAccepted(
        f"no {peer} opens a session for this application. Without a seal, they say: {said}"
    )


class _Reached(KcmError):
    """What a Gateway that was reached replied, in place of a result."""


class _NoGateway(Exception):
    """No Gateway is on the roster, or the channel is closed."""


def _room(size: int) -> memoryview | None:
    return memoryview(bytearray(size)) if size <= limits.BODY_MAX else None


def _as_reply(error: KcmError) -> bytes:
    return encode(Failure(v=1, error=error.code, detail=error.detail))
