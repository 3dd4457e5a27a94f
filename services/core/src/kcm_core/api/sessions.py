"""The sessions that callers opened with this incarnation.

A session exists in the memory of one incarnation, and so does its record of the requests that were
accepted: none is executed twice, also not after a restart, which ends every session. A ticket opens
one session once; its id is remembered as long as the key for which it was made, whatever happens to
its session or to the wall clock. The roster is checked at every request, so a caller that was
removed is refused at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance
from kcm_schemas.session import Ticket
from kcm_schemas.vault import CoreReply
from kcm_sealing.hpke import KeyClosed
from kcm_sealing.replay_window import ReplayWindow
from kcm_sealing.session import Session, TicketInfo, open_session_as_callee, to_sign
from kcm_trust.verify import Untrusted

from kcm_core.api.session_keys import SessionKeys

log = logging.getLogger(__name__)

SESSIONS_MAX: Final = 1024
"""Open sessions that are kept, with one locked page each; the least recently used is closed."""

SESSIONS_PER_CALLER_MAX: Final = 8
"""Open sessions of one caller, which needs two during a renewal: none displaces other callers."""

TICKETS_MAX: Final = 4096
"""Tickets of one caller for one key. A Gateway makes one in a few minutes, and at most one in two
seconds, whatever is forged: less than half of these in the time of a key."""

TICKET_S: Final = limits.TICKET_MAX_MS / 1000
"""Seconds of a session, by the elapsed clock: a step of the wall clock does not prolong it."""

LOOK_S: Final = 30.0
"""Seconds between two looks at what has ended: keys, and sessions that no caller uses any more."""


@dataclass(slots=True)
class OpenSession:
    """A session with a caller, and the counters that it has used."""

    keys: Session
    opened: float
    """``clock.elapsed`` of its opening."""
    window: ReplayWindow = field(default_factory=ReplayWindow)

    @property
    def incarnation(self) -> bytes:
        """The caller's incarnation, which opened the session."""
        return self.keys.info.incarnation


class Sessions:
    """Opens sessions for Gateways of this region, and finds them."""

    def __init__(self, host: Host, keys: SessionKeys, incarnations: Incarnations) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._keys: Final = keys
        self._incarnations: Final = incarnations
        self._open: OrderedDict[tuple[str, bytes], OpenSession] = OrderedDict()
        self._tasks: Final = TaskSet()
        self._unbelieved: Final = RejectionLog("a caller's ticket", host.emit)
        host.me.rosters.listen(self._judge_again)

    def __len__(self) -> int:
        """The number of open sessions."""
        return len(self._open)

    def start(self) -> None:
        """Change keys, and wipe what has ended, by time: also while no caller asks."""
        self._tasks.spawn(self._look())

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve what begins a session: ``key`` and ``open``; raises ``KcmError``."""
        match subjects.read_core_session(subject):
            case "key":
                return self._keys.statement()
            case "open":
                ticket = decode(Ticket, body)
                try:
                    session = self.open(ticket)
                except KcmError as error:
                    if error.code is Code.FORBIDDEN:
                        self._unbelieved.record(error)
                    raise
                nonce = self._random.public(limits.NONCE_SIZE)
                sealed = session.keys.seal_reply(sha256(body).digest(), memoryview(b""), nonce)
                return encode(CoreReply(v=1, sealed=sealed))
            case _:
                raise KcmError(Code.MALFORMED, "a session begins with key and open")

    def registered(self, session: OpenSession) -> bool:
        """Whether this Core has read the lease entry of the caller's incarnation.

        A Core that decides on the completeness of a kill knows every incarnation that is served.
        """
        return self._incarnations.knows(session.keys.info.caller, session.incarnation)

    def session(self, caller: str, session_id: bytes) -> tuple[OpenSession, Instance]:
        """Return an open session, and its caller's entry on the roster in force.

        Raises ``unknown_session`` for one that is not open here or has ended, and ``forbidden`` for
        a caller that may not act any more.
        """
        known = self._open.get((caller, session_id))
        if known is None or not self.live(known):
            raise KcmError(Code.UNKNOWN_SESSION)
        try:
            return known, self._me.verifier.acting(caller)
        except Untrusted:
            raise KcmError(Code.FORBIDDEN, "the caller is not on the roster") from None

    def live(self, session: OpenSession) -> bool:
        """Whether a session is open, by both clocks."""
        age_s = self._clock.elapsed() - session.opened
        return (
            not session.keys.closed
            and age_s < TICKET_S
            and session.keys.info.live(self._clock.unix_ms())
        )

    def used(self, session: OpenSession) -> None:
        """Keep a session that its caller has just used, by a sealed request, longer than others."""
        key = (session.keys.info.caller, session.keys.info.session_id)
        if self._open.get(key) is session:
            self._open.move_to_end(key)

    def open(self, ticket: Ticket) -> OpenSession:
        """Open the session of a ticket, once.

        Raises ``forbidden`` for a caller or ticket that does not verify, ``busy`` for a caller with
        too many tickets, and ``unknown_session`` for a ticket that has ended, was opened before, or
        was made for a key that this incarnation does not have.
        """
        now_ms = self._clock.unix_ms()
        info = TicketInfo(
            region=self._me.region,
            callee=self._me.name,
            key_id=ticket.key_id,
            caller=ticket.caller,
            incarnation=ticket.incarnation,
            session_id=ticket.session_id,
            issued_ms=ticket.issued_ms,
            expiry_ms=ticket.expiry_ms,
        )
        key = self._keys.find(ticket.key_id)
        if key is None or not info.live(now_ms):
            raise KcmError(Code.UNKNOWN_SESSION)
        if ticket.session_id in key.tickets.get(ticket.caller, ()):
            raise KcmError(Code.UNKNOWN_SESSION, "a ticket opens one session, once; make a new one")
        signed = to_sign(info.encode(), ticket.ciphertext)
        try:
            self._me.verifier.ticket(ticket.caller, self._me.region, ticket.signature, signed)
        except Untrusted:
            raise KcmError(Code.FORBIDDEN, "the ticket is of no Gateway on the roster") from None
        seen = key.tickets.setdefault(ticket.caller, set())
        if len(seen) >= TICKETS_MAX:
            raise KcmError(Code.BUSY, "the caller has made too many tickets for this key")
        seen.add(ticket.session_id)
        try:
            keys = open_session_as_callee(info, key.private, ticket.ciphertext, Arena())
        except (InvalidTag, KeyClosed):
            raise KcmError(Code.UNKNOWN_SESSION) from None
        self._make_room(ticket.caller)
        session = OpenSession(keys, self._clock.elapsed())
        self._open[ticket.caller, ticket.session_id] = session
        return session

    def wipe_ended(self) -> None:
        """Wipe the keys of sessions that have ended."""
        for key in [key for key, one in self._open.items() if not self.live(one)]:
            self._open.pop(key).keys.close()

    def _make_room(self, caller: str) -> None:
        """Wipe ended sessions, and those of this caller that exceed its limit with one more."""
        self.wipe_ended()
        own = [key for key in self._open if key[0] == caller]
        for key in own[: max(0, len(own) + 1 - SESSIONS_PER_CALLER_MAX)]:
            self._open.pop(key).keys.close()
        while len(self._open) >= SESSIONS_MAX:
            self._open.popitem(last=False)[1].keys.close()

    def _judge_again(self, names: frozenset[str]) -> None:
        """Close the sessions of callers whose roster entry changed: they open new ones."""
        for key in [key for key in self._open if key[0] in names]:
            self._open.pop(key).keys.close()

    def close(self) -> None:
        """Wipe every session's keys, and record the refusals that are only counted so far."""
        self._tasks.close()
        for session in self._open.values():
            session.keys.close()
        self._open.clear()
        self._unbelieved.close()

    async def _look(self) -> None:
        while True:
            try:
                self._keys.change()
                self.wipe_ended()
            except Exception as error:  # noqa: BLE001 - no fault may end the wiping by time
                log.error("keys of sessions were not changed: %s", describe(error))
            await asyncio.sleep(LOOK_S)
