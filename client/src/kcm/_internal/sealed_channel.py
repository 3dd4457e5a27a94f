"""An application's sealed requests to Gateways of a region; it takes the place of a transport.

The channel holds sessions with two Gateways. A request goes to one of them, and to the other one if
that one cannot be reached or does not take it. What a Gateway sealed is returned like its reply
without a seal: a refusal as an encoded ``Failure``.
"""

from __future__ import annotations

from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects, limits
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.roster import Role
from kcm_schemas.session import SealedRequest
from kcm_sealing.memory import SecretRandomness
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.replies import Replies
from kcm_sessions.session_opener import Elsewhere
from kcm_trust.identity import Identity

from kcm._internal.known_roster import KnownRoster
from kcm._internal.session_memory import SessionEnded, SessionMemory
from kcm._internal.transport import Transport

_STRANGE: Final = (
    "a Gateway opens no session for this application, or forgets it at once: compare the clocks of"
    " both, and look whether the Gateway restarts again and again"
)


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
        )
        self._sessions: Final = PeerSessions(
            transport.request, me, clock, randomness, SessionMemory
        )
        self._replies: Final = Replies(self._sessions, _STRANGE)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send a request under a seal, and return what the Gateway sealed.

        Raises ``unavailable`` if no Gateway could be reached, and ``deadline_exceeded``.
        """
        asked, until = data_subjects.read_data(subject), self._clock.elapsed() + timeout_s
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
                return await self._exchange(refused, asked, body, left)
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
            if not self._sessions.others(refused):
                break
        return await self._failed(list(refused.values()), reason)

    async def close(self) -> None:
        """Wipe the keys of the sessions, and disconnect."""
        self._tasks.close()
        self._sessions.close()
        await self._transport.close()

    async def _exchange(
        self, without: dict[str, Elsewhere], asked: DataSubject, body: bytes, timeout_s: float
    ) -> bytes:
        try:
            session = await self._sessions.choose(without)
        except Elsewhere:
            raise
        except KcmError as error:
            raise _NoGateway(error.detail) from None
        sent, counter = self._clock.elapsed(), session.begin()
        try:
            draft = SealedRequest(
                v=1,
                caller=session.keys.info.caller,
                session_id=session.keys.info.session_id,
                counter=counter,
                sealed=b"",
            )
            names = (asked.operation, asked.tenant, asked.service)
            clear = draft.clear(self._region, *names)
            nonce = self._random.public(limits.NONCE_SIZE)
            sealed = session.keys.seal_request(counter, clear, memoryview(body), nonce)
            message = encode(draft.model_copy(update={"sealed": sealed}))
            subject = data_subjects.gateway_at(self._region, session.peer, *names)
            try:
                answer = await self._transport.request(subject, message, timeout_s)
            except KcmError as error:
                raise self._replies.unreached(session, error, sent) from None
            try:
                return self._replies.read(session, answer, message, _room).tobytes()
            except Elsewhere:
                raise
            except KcmError as error:  # the Gateway sealed it
                return _as_reply(error)
        finally:
            session.end()

    async def _failed(self, refused: list[Elsewhere], reason: str) -> bytes:
        """Return the refusal of a Gateway that was reached; raise if none was.

        ``reason`` says why no Gateway was asked, if none was.

        The roster may have changed: the next request uses the one that a Gateway has now.
        """
        await self._roster.refresh()
        for error in refused:
            if not error.away:
                strange = error.code is Code.UNKNOWN_SESSION
                code = Code.UNAVAILABLE if strange else error.code
                return _as_reply(KcmError(code, _STRANGE if strange else error.detail))
        if not refused:
            raise KcmError(Code.UNAVAILABLE, reason)
        raise KcmError(refused[-1].code, refused[-1].detail)

    def _told(self, gateway: str, version: int) -> None:
        """A Gateway acts by this version of the roster; it sealed that, so no broker hides it."""
        if version > self._roster.verifier.roster.version:
            self._tasks.spawn(self._roster.ask(gateway))


class _NoGateway(Exception):
    """No Gateway is on the roster, or the channel is closed."""


def _room(size: int) -> memoryview | None:
    return memoryview(bytearray(size)) if size <= limits.BODY_MAX else None


def _as_reply(error: KcmError) -> bytes:
    return encode(Failure(v=1, error=error.code, detail=error.detail))
