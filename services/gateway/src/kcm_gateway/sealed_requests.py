"""Sealed requests of applications: opened once each, and answered under the same session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_runtime.host import Host
from kcm_schemas.app import App
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.session import SealedRequest
from kcm_sessions import sealed_bodies
from kcm_sessions.sealed_bodies import SealedBodies
from kcm_sessions.sessions import Sessions

from kcm_gateway.keys.asks import AppAsks


@dataclass(frozen=True, slots=True)
class Opened(sealed_bodies.Opened):
    """One request, with the application's asks."""

    asks: AppAsks


class SealedRequests(SealedBodies[App]):
    """Opens requests, and seals what is answered."""

    def __init__(self, host: Host, sessions: Sessions[App]) -> None:
        super().__init__(host, sessions, "an application's seal")
        self._region: Final = host.me.region

    def open_request(self, asked: DataSubject, body: bytes) -> Opened:
        """Open a request, once; raises ``KcmError`` with a code of ``session.UNSEALED``."""
        request = decode(SealedRequest, body)
        session = self._sessions.find(request.caller, request.session_id)
        clear = request.clear(self._region, asked.operation, asked.tenant, asked.service)
        opened = self.open(session, request.counter, clear, request.sealed)
        asks = AppAsks(session.caller, request.asks)
        return Opened(session, opened.digest, opened.plain, asks)

    def acting(self, opened: Opened) -> App:
        """Return the application's entry, by what is in force now; raises ``forbidden``."""
        try:
            return self._sessions.acting(opened.session)
        except KcmError as error:
            if error.code is not Code.UNKNOWN_SESSION:
                raise
        raise KcmError(Code.FORBIDDEN, "the application has another key now")
