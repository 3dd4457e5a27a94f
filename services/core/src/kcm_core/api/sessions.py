"""Sessions that callers opened with a ticket.

Any Core of the region can open any ticket, so Cores share no session state: an unknown session is
opened from the ticket that every request carries. The roster is checked at every request, so a
caller that was removed is refused at once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance, Region
from kcm_schemas.vault import CoreRequest
from kcm_sealing.hpke import HpkePrivate, KeyClosed
from kcm_sealing.session import Session, TicketInfo, open_session_as_callee, to_sign
from kcm_trust.verify import Untrusted

SESSIONS_MAX: Final = 1024
"""Open sessions that are kept, with one locked page each; the least recently used is closed."""

SESSIONS_PER_CALLER_MAX: Final = 8
"""Open sessions of one caller, which needs two during a renewal: none displaces other callers."""


class Sessions:
    """The open sessions of a region's callers."""

    def __init__(
        self,
        region: Region,
        hpke_private: HpkePrivate,
        rosters: Rosters,
        incarnations: Incarnations,
    ) -> None:
        self._region: Final = region.region
        self._key_id: Final = region.hpke_key_id
        self._incarnations: Final = incarnations
        self._hpke_private: Final = hpke_private
        self._rosters: Final = rosters
        self._open: OrderedDict[tuple[bytes, bytes], Session] = OrderedDict()
        rosters.listen(self._judge_again)

    def __len__(self) -> int:
        """The number of open sessions."""
        return len(self._open)

    def registered(self, request: CoreRequest) -> bool:
        """Whether this Core has read the lease entry of the caller's incarnation.

        A Core that decides on the completeness of a kill knows every incarnation that is served.
        """
        return self._incarnations.knows(request.caller, request.incarnation)

    def session(self, request: CoreRequest, now_ms: int) -> tuple[Session, Instance]:
        """The session of a request, and its caller.

        Raises ``forbidden`` for a caller or ticket that does not verify, and ``unknown_session``
        for a ticket that has expired or was made for another key.
        """
        ticket = request.ticket
        info = TicketInfo(
            region=self._region,
            hpke_key_id=ticket.hpke_key_id,
            caller=request.caller,
            session_id=ticket.session_id,
            issued_ms=ticket.issued_ms,
            expiry_ms=ticket.expiry_ms,
        )
        if ticket.hpke_key_id != self._key_id or not info.live(now_ms):
            raise KcmError(Code.UNKNOWN_SESSION)
        # The signature covers everything from which the session is derived: it names the session.
        key = (ticket.session_id, ticket.signature)
        known = self._open.get(key)
        try:
            if known is not None and known.info == info:
                self._open.move_to_end(key)
                return known, self._rosters.verifier.acting(request.caller)
            signed = to_sign(info.encode(), ticket.ciphertext)
            caller = self._rosters.verifier.ticket(
                request.caller, self._region, ticket.signature, signed
            )
            session = open_session_as_callee(info, self._hpke_private, ticket.ciphertext, Arena())
        except Untrusted:
            raise KcmError(Code.FORBIDDEN, "the caller is not on the roster") from None
        except (InvalidTag, KeyClosed):
            raise KcmError(Code.UNKNOWN_SESSION) from None
        self._make_room(request.caller, now_ms)
        self._open[key] = session
        return session, caller

    def _make_room(self, caller: str, now_ms: int) -> None:
        """Wipe expired sessions, and those of this caller that exceed its limit with one more."""
        own = [key for key, one in self._open.items() if one.info.caller == caller]
        gone = {key for key, one in self._open.items() if not one.info.live(now_ms)}
        gone.update(own[: max(0, len(own) + 1 - SESSIONS_PER_CALLER_MAX)])
        for key in gone:
            self._open.pop(key).close()
        while len(self._open) >= SESSIONS_MAX:
            self._open.popitem(last=False)[1].close()

    def _judge_again(self, names: frozenset[str]) -> None:
        """Close the sessions of callers whose roster entry changed; their tickets open new ones."""
        for key in [key for key, one in self._open.items() if one.info.caller in names]:
            self._open.pop(key).close()

    def close(self) -> None:
        """Wipe every session's keys."""
        for session in self._open.values():
            session.close()
        self._open.clear()
