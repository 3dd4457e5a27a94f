"""Whole requests in sessions: opened once each, and answered under the same session.

The counter is taken as soon as the request is opened, before any wait: a copy is answered
``replayed``, without any work. Refusals before that have no seal, and mean only that another
instance, or a new session, may help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic

from cryptography.exceptions import InvalidTag
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.session import SealedRefusal, SealedReply
from kcm_sealing.session import Outcome, plain_size

from kcm_sessions.sessions import E, OpenSession, Sessions


@dataclass(frozen=True, slots=True)
class Opened:
    """One request: its session, what its reply is bound to, and what was sealed."""

    session: OpenSession
    digest: bytes
    plain: bytes

    @property
    def caller(self) -> str:
        """The caller, who sealed it."""
        return self.session.caller


class SealedBodies(Generic[E]):
    """Opens requests, and seals what is answered."""

    def __init__(self, host: Host, sessions: Sessions[E], source: str) -> None:
        """``source`` names the seal in the events of rejected requests."""
        self._random: Final = host.randomness
        self._sessions: Final = sessions
        self._unbelieved: Final = RejectionLog(source, host.emit)

    def open(self, session: OpenSession, counter: int, clear: bytes, sealed: bytes) -> Opened:
        """Open a request, once; raises ``KcmError`` with a code of ``session.UNSEALED``."""
        if not session.window.fresh(counter):
            raise self._copy()
        if session.keys.closed:
            raise KcmError(Code.UNKNOWN_SESSION)
        plain = memoryview(bytearray(plain_size(sealed)))
        try:
            session.keys.open_request(counter, clear, sealed, plain)
        except InvalidTag:
            error = KcmError(Code.UNKNOWN_SESSION, "the request was not sealed for this subject")
            self._unbelieved.record(error)
            raise error from None
        if not session.window.take(counter):
            raise self._copy()
        self._sessions.used(session)
        return Opened(session, session.keys.request_digest(counter, clear), plain.tobytes())

    def reply(self, opened: Opened, plain: bytes) -> bytes:
        """Seal a reply; raises ``unknown_session`` if the session was closed meanwhile."""
        return encode(SealedReply(v=1, sealed=self._seal(opened, plain, "answered")))

    def refuse(self, opened: Opened, error: KcmError) -> bytes:
        """Seal a refusal; raises as ``reply`` does."""
        plain = encode(Failure(v=1, error=error.code, detail=error.detail))
        return encode(SealedRefusal(v=1, refused=self._seal(opened, plain, "refused")))

    def close(self) -> None:
        """Record the refusals that are only counted so far."""
        self._unbelieved.close()

    def _seal(self, opened: Opened, plain: bytes, outcome: Outcome) -> bytes:
        keys, nonce = opened.session.keys, self._random.public(limits.NONCE_SIZE)
        if keys.closed:
            raise KcmError(Code.UNKNOWN_SESSION)
        return keys.seal_reply(opened.digest, memoryview(plain), nonce, outcome)

    def _copy(self) -> KcmError:
        error = KcmError(Code.REPLAYED, "the request was sent before; make a new one")
        self._unbelieved.record(error)
        return error
