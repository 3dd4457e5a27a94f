"""Operators' requests to this Core alone, each sealed in a session of the operator.

Inside the seal is the operator's signed statement, and the signed reply: what is evidence is the
same as without a seal. The seal keeps payloads from the broker. The session ties a request to this
incarnation, and a copy is refused without any work (``kcm_sessions.sealed_bodies``). An operator
who repeats a request takes the next counter, and gets the answer of ``AdminEndpoint`` to a copy.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_runtime.admin_endpoint import AdminEndpoint
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_schemas import subjects
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator
from kcm_schemas.session import SealedAdmin
from kcm_sessions.sealed_bodies import Opened, SealedBodies
from kcm_sessions.sessions import Sessions

log = logging.getLogger(__name__)


class SealedAdminRequests:
    """Opens operators' requests, has them served, and seals the replies."""

    def __init__(self, host: Host, sessions: Sessions[Operator], endpoint: AdminEndpoint) -> None:
        self._me: Final = host.me
        self._sessions: Final = sessions
        self._endpoint: Final = endpoint
        self._bodies: Final = SealedBodies(host, sessions, "an operator's seal")

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request; raises ``KcmError`` where no seal is possible."""
        opened = self._open(subject, body)
        try:
            reply = await self._endpoint.handle(subject, opened.plain, opened.caller)
        except KcmError as error:
            return self._bodies.refuse(opened, error)
        except Exception as error:  # noqa: BLE001 - a fault is the answer, and not tried elsewhere
            log.error("an operator's request failed: %s", describe(error))
            return self._bodies.refuse(opened, KcmError(Code.INTERNAL))
        return self._bodies.reply(opened, reply)

    def close(self) -> None:
        """Record the refusals that are only counted so far."""
        self._bodies.close()

    def _open(self, subject: str, body: bytes) -> Opened:
        """Open a request of an operator that may act, once."""
        noun, verb = subjects.read_admin_at(subject, self._me.name)
        request = decode(SealedAdmin, body)
        session = self._sessions.find(request.caller, request.session_id)
        self._sessions.acting(session)
        clear = request.clear(self._me.region, noun, verb)
        return self._bodies.open(session, request.counter, clear, request.sealed)
