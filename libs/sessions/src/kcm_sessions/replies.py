"""What a caller makes of the answer to a sealed request, or of none.

A sealed answer or refusal counts. Everything else can come from any client of the broker: it only
makes the caller ask another peer, or open a new session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_schemas import limits
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.session import SealedRefusal, decode_sealed_reply
from kcm_sealing.session import plain_size

from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.session_opener import Elsewhere, PeerSession, unsealed

Room = Callable[[int], memoryview | None]
"""Returns the memory for so many bytes of an answer; ``None`` if no answer has that size."""

_ELSEWHERE: Final = frozenset({Code.BUSY, Code.UNAVAILABLE})
"""Sealed refusals after which another peer is asked: the reason may be this peer's own."""


class Replies:
    """Opens answers, and tells the sessions what they show about a peer."""

    def __init__(self, sessions: PeerSessions, strange: str) -> None:
        """``strange`` is the text for a peer that forgets a session again and again."""
        self._sessions: Final = sessions
        self._strange: Final = strange

    def unreached(self, session: PeerSession, error: KcmError, sent: float) -> KcmError:
        """Return the error of a request without a reply, which was sent at ``sent``."""
        if error.code is Code.UNAVAILABLE:
            self._sessions.failed(session.peer)
            return Elsewhere(session.peer, error, away=True)
        if error.code is Code.DEADLINE_EXCEEDED:
            self._sessions.failed(session.peer)
            if session.answered < sent:  # otherwise, the peer answers, but not this request
                self._sessions.forget(session)
        return error

    def read(self, session: PeerSession, answer: bytes, digest: bytes, room: Room) -> memoryview:
        """Open the answer to the request with this digest (``Session.request_digest``).

        Raises ``Elsewhere``, or the refusal that the peer sealed.

        On failure, the memory of ``room`` is wiped.
        """
        try:
            reply = decode_sealed_reply(answer)
        except KcmError as error:
            said = unsealed(session.peer, error)
            if said.code is not Code.UNKNOWN_SESSION:
                self._sessions.failed(session.peer)
            elif not self._sessions.doubt(session):
                said = KcmError(Code.UNAVAILABLE, self._strange)
            raise Elsewhere(session.peer, said) from None
        if not self._sessions.acts(session):
            text = f"{session.peer} acts no more"
            raise Elsewhere(session.peer, KcmError(Code.UNAVAILABLE, text))
        if isinstance(reply, SealedRefusal):
            raise self._refused(session, digest, reply)
        out = room(plain_size(reply.sealed))
        if out is None:
            raise self._forged(session)
        try:
            session.keys.open_reply(digest, reply.sealed, out)
        except InvalidTag:
            raise self._forged(session) from None
        self._sessions.answers(session)
        return out

    def _refused(self, session: PeerSession, digest: bytes, reply: SealedRefusal) -> KcmError:
        """Return the refusal that the peer sealed for this very request."""
        said = memoryview(bytearray(plain_size(reply.refused)))
        try:
            session.keys.open_reply(digest, reply.refused, said, "refused")
        except InvalidTag:
            return self._forged(session)
        try:
            failure = decode(Failure, said.tobytes(), limit=limits.REFUSAL_MAX)
        except KcmError:
            return self._forged(session)
        if failure.error is Code.OK:  # it must not pass for a success
            return self._forged(session)
        self._sessions.answers(session)
        error = KcmError(failure.error, failure.detail)
        if error.code is Code.UNKNOWN_SESSION:
            self._sessions.forget(session)
        elif error.code in _ELSEWHERE:
            self._sessions.failed(session.peer)
        else:
            return error
        return Elsewhere(session.peer, error)

    def _forged(self, session: PeerSession) -> Elsewhere:
        self._sessions.failed(session.peer)
        text = f"the reply of {session.peer} does not authenticate"
        return Elsewhere(session.peer, KcmError(Code.UNAVAILABLE, text))
