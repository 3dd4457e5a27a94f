"""Sealed requests of applications: opened once each, and answered under the same session.

The counter is taken as soon as the request is opened, before any wait: a copy is answered
``replayed``, without any work. Refusals before that have no seal, and mean only that another
Gateway, or a new session, may help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Purged
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_schemas import limits
from kcm_schemas.app import App
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.session import SealedRefusal, SealedReply, SealedRequest
from kcm_sealing.session import Outcome, plain_size
from kcm_sessions.sessions import OpenSession, Sessions

from kcm_gateway.keys.asks import AppAsks


@dataclass(frozen=True, slots=True)
class Opened:
    """One request: its session, what its reply is bound to, what was sealed, and its asks."""

    session: OpenSession
    digest: bytes
    plain: bytes
    asks: AppAsks

    @property
    def caller(self) -> str:
        """The application."""
        return self.session.caller


class SealedRequests:
    """Opens requests, and seals what is answered."""

    def __init__(self, host: Host, sessions: Sessions[App]) -> None:
        self._region: Final = host.me.region
        self._random: Final = host.randomness
        self._sessions: Final = sessions
        self._unbelieved: Final = RejectionLog("an application's seal", host.emit)

    def open(self, asked: DataSubject, body: bytes) -> Opened:
        """Open a request, once; raises ``KcmError`` with a code of ``session.UNSEALED``."""
        request = decode(SealedRequest, body)
        session = self._sessions.find(request.caller, request.session_id)
        if not session.window.fresh(request.counter):
            raise self._copy()
        clear = request.clear(self._region, asked.operation, asked.tenant, asked.service)
        plain = memoryview(bytearray(plain_size(request.sealed)))
        try:
            session.keys.open_request(request.counter, clear, request.sealed, plain)
        except InvalidTag:
            error = KcmError(Code.UNKNOWN_SESSION, "the request was not sealed for this subject")
            self._unbelieved.record(error)
            raise error from None
        except Purged:
            raise KcmError(Code.UNKNOWN_SESSION) from None
        if not session.window.take(request.counter):
            raise self._copy()
        self._sessions.used(session)
        asks = AppAsks(session.caller, request.asks)
        digest = session.keys.request_digest(request.counter, clear)
        return Opened(session, digest, plain.tobytes(), asks)

    def acting(self, opened: Opened) -> App:
        """Return the application's entry, by what is in force now; raises ``forbidden``."""
        try:
            return self._sessions.acting(opened.session)
        except KcmError as error:
            if error.code is not Code.UNKNOWN_SESSION:
                raise
        raise KcmError(Code.FORBIDDEN, "the application has another key now")

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
        nonce = self._random.public(limits.NONCE_SIZE)
        try:
            return opened.session.keys.seal_reply(opened.digest, memoryview(plain), nonce, outcome)
        except Purged:
            raise KcmError(Code.UNKNOWN_SESSION) from None

    def _copy(self) -> KcmError:
        error = KcmError(Code.REPLAYED, "the request was sent before; make a new one")
        self._unbelieved.record(error)
        return error
