"""The sessions that callers opened with this incarnation.

A session exists in the memory of one incarnation, and so does its record of the requests that were
accepted: none is executed twice, also not after a restart, which ends every session. A ticket opens
one session once; its id is remembered as long as the key for which it was made, whatever happens to
its session or to the wall clock. The caller is judged at every request, so one that was removed is
refused at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Generic, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects, limits
from kcm_schemas.codec import decode, encode, start_of
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import NOT_COUNTED, OPENED, SealedReply, Ticket
from kcm_sealing.hpke import KeyClosed
from kcm_sealing.memory import Lend
from kcm_sealing.replay_window import ReplayWindow
from kcm_sealing.session import Session, TicketInfo, open_session_as_callee, to_sign
from kcm_trust.envelopes import Unknown, Untrusted

from kcm_sessions.session_keys import SessionKeys, SessionPrivate

log = logging.getLogger(__name__)

TICKET_S: Final = limits.TICKET_MAX_MS / 1000
"""Seconds of a session, by the elapsed clock: a step of the wall clock does not prolong it."""

LOOK_S: Final = 30.0
"""Seconds between two looks at what has ended: keys, and sessions that no caller uses any more."""


class Entry(Protocol):
    """What makes a caller known: the roster's entry of an instance, or an application's."""

    @property
    def public_key(self) -> bytes:
        """The key with which the caller signs its tickets."""
        ...


E = TypeVar("E", bound=Entry)
E_co = TypeVar("E_co", bound=Entry, covariant=True)


class Callers(Protocol[E_co]):
    """Who may open sessions here."""

    def acting(self, caller: str) -> E_co:
        """Return the entry of a caller that may act now.

        Raises ``Untrusted``, and ``unavailable`` while that cannot be decided here.
        """
        ...

    def ticket(self, caller: str, signature: bytes, message: bytes) -> E_co:
        """Verify a ticket's signature by its caller; raises as ``acting`` does."""
        ...

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Call ``changed`` with the names of callers whose entry has changed, if that is known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of sessions and tickets. A caller's own sessions make room for its new ones."""

    sessions: int
    """Open sessions that are kept; the least recently used is closed."""
    per_caller: int
    """Open sessions of one caller; each of its processes needs two during a renewal."""
    tickets: int
    """Tickets of one caller for one key."""


INSTANCES: Final = Limits(sessions=1024, per_caller=8, tickets=4096)
"""For callers that are instances. A Gateway makes a ticket in a few minutes, and at most one in two
seconds, whatever is forged: less than half of these in the time of a key."""

APPLICATIONS: Final = Limits(sessions=16_384, per_caller=512, tickets=8192)
"""For applications: each has many processes, and a process makes some 12 tickets an hour."""

OPERATORS: Final = Limits(sessions=256, per_caller=32, tickets=8192)
"""For operators: few persons, but each command that one gives is a process, and makes a ticket."""


@dataclass(slots=True)
class OpenSession:
    """A session with a caller, and the counters that it has used."""

    keys: Session
    opened: float
    """``clock.elapsed`` of its opening."""
    public_key: bytes
    """The key that signed its ticket."""
    window: ReplayWindow = field(default_factory=ReplayWindow)

    @property
    def caller(self) -> str:
        """The name of the caller."""
        return self.keys.info.caller

    @property
    def incarnation(self) -> bytes:
        """The caller's incarnation, which opened the session."""
        return self.keys.info.incarnation


class Sessions(Generic[E]):
    """Opens sessions for callers of this region, and finds them."""

    def __init__(
        self, host: Host, keys: SessionKeys, callers: Callers[E], lend: Lend, bounds: Limits
    ) -> None:
        """``lend`` makes the memory of a session, which owns it."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._keys: Final = keys
        self._callers: Final = callers
        self._lend: Final = lend
        self._bounds: Final = bounds
        self._open: OrderedDict[tuple[str, bytes], OpenSession] = OrderedDict()
        self._of_caller: Final[dict[str, OrderedDict[bytes, OpenSession]]] = {}
        self._tasks: Final = TaskSet()
        self._unbelieved: Final = RejectionLog("a caller's ticket", host.emit)
        self._strangers: Final = RejectionLog("the ticket of an unknown caller", host.emit)
        """Apart, so that names that a sender invents hide no refusal of a known caller."""
        callers.listen(self._judge_again)

    def __len__(self) -> int:
        """The number of open sessions."""
        return len(self._open)

    def start(self) -> None:
        """Change keys, and wipe what has ended, by time: also while no caller asks."""
        self._tasks.spawn(self._look())

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve what begins a session, ``key`` and ``open``; raises ``KcmError``."""
        match data_subjects.read_session(subject):
            case "key":
                return self._keys.statement()
            case "open":
                return self.begin(body)
            case _:
                raise KcmError(Code.MALFORMED, "the verbs of a session are key and open")

    def begin(self, body: bytes) -> bytes:
        """Open the session of a ticket; returns a sealed reply, or raises as ``open`` does."""
        ticket = decode(Ticket, body)
        try:
            session = self.open(ticket)
        except KcmError as error:
            if error.code is Code.FORBIDDEN:
                unknown = isinstance(error.__cause__, Unknown)
                rejected = self._strangers if unknown else self._unbelieved
                rejected.record(error, claimed=ticket.caller)
            raise
        nonce = self._random.public(limits.NONCE_SIZE)
        inside = memoryview(OPENED.pack(self._me.verifier.roster.version))
        sealed = session.keys.seal_reply(sha256(body).digest(), inside, nonce)
        return encode(SealedReply(v=1, sealed=sealed))

    def find(self, caller: str, session_id: bytes) -> OpenSession:
        """Return an open session; raises ``unknown_session`` for one that has ended."""
        known = self._open.get((caller, session_id))
        if known is None or not self.live(known):
            raise KcmError(Code.UNKNOWN_SESSION)
        return known

    def lane(self, body: bytes) -> tuple[str | None, bytes | None]:
        """Return caller and id of the session that a sealed message states, if there is one.

        Only the caller, this instance and the broker know the id. The lane of all other messages is
        ``(None, None)``, so that a caller's name alone gets no message into that caller's lane.
        """
        start = start_of(body)
        caller, session_id = start.get("caller"), start.get("session_id")
        stated = isinstance(caller, str) and isinstance(session_id, bytes)
        if stated and (caller, session_id) in self._open:
            return caller, session_id
        return None, None

    def acting(self, session: OpenSession) -> E:
        """Return the entry of a session's caller, by what is in force now.

        Raises ``forbidden`` for a caller that may not act any more, and ``unknown_session`` for one
        that has another key now.
        """
        try:
            entry = self._callers.acting(session.caller)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, error.reason) from None
        if entry.public_key != session.public_key:
            raise KcmError(Code.UNKNOWN_SESSION)
        return entry

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
        key = (session.caller, session.keys.info.session_id)
        if self._open.get(key) is session:
            self._open.move_to_end(key)
            self._of_caller[session.caller].move_to_end(session.keys.info.session_id)

    def open(self, ticket: Ticket) -> OpenSession:
        """Open the session of a ticket, once.

        Raises ``forbidden`` for a caller or ticket that does not verify, ``busy`` for a caller with
        too many tickets, and ``unknown_session`` for a ticket that has ended, was opened before, or
        was made for a key that this incarnation does not have.
        """
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
        if key is None or not info.live(self._clock.unix_ms()):
            raise KcmError(Code.UNKNOWN_SESSION)
        signed = to_sign(info.encode(), ticket.ciphertext)
        try:
            entry = self._callers.ticket(ticket.caller, ticket.signature, signed)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, f"{NOT_COUNTED}{error.reason}") from error
        self._remember(key, ticket, entry.public_key)
        memory = self._lend()
        try:
            keys = open_session_as_callee(info, key.private, ticket.ciphertext, memory)
        except (InvalidTag, KeyClosed):
            raise KcmError(Code.UNKNOWN_SESSION) from None
        self._make_room(ticket.caller)
        session = OpenSession(keys, self._clock.elapsed(), entry.public_key)
        self._open[ticket.caller, ticket.session_id] = session
        own = self._of_caller.setdefault(ticket.caller, OrderedDict())
        own[ticket.session_id] = session
        return session

    def wipe_ended(self) -> None:
        """Wipe the keys of sessions that have ended."""
        for key in [key for key, one in self._open.items() if not self.live(one)]:
            self._close(key)

    def close(self) -> None:
        """Wipe every session's keys, and record the refusals that are only counted so far."""
        self._tasks.close()
        for key in list(self._open):
            self._close(key)
        self._unbelieved.close()
        self._strangers.close()

    def _remember(self, key: SessionPrivate, ticket: Ticket, public_key: bytes) -> None:
        """Remember a ticket, whether it opens or not.

        Raises ``unknown_session`` for one that was opened before, and ``busy`` for one too many.
        The tickets of a key that was replaced, which a thief may have made, do not count.
        """
        seen = key.tickets.setdefault((ticket.caller, public_key), set())
        if ticket.session_id in seen:
            raise KcmError(Code.UNKNOWN_SESSION, "a ticket opens one session, once; make a new one")
        if len(seen) >= self._bounds.tickets:
            raise KcmError(Code.BUSY, "the caller has made too many tickets for this key")
        seen.add(ticket.session_id)

    def _make_room(self, caller: str) -> None:
        """Wipe sessions of this caller, and of all, that exceed the limits with one more."""
        own = self._of_caller.get(caller, ())
        while len(own) >= self._bounds.per_caller:
            self._close((caller, next(iter(own))))
        if len(self._open) >= self._bounds.sessions:
            self.wipe_ended()
        while len(self._open) >= self._bounds.sessions:
            self._close(next(iter(self._open)))

    def _close(self, key: tuple[str, bytes]) -> None:
        caller, session_id = key
        self._open.pop(key).keys.close()
        own = self._of_caller[caller]
        del own[session_id]
        if not own:
            del self._of_caller[caller]

    def _judge_again(self, names: frozenset[str]) -> None:
        """Close the sessions of callers whose entry changed: they open new ones."""
        for name in names & self._of_caller.keys():
            for session_id in list(self._of_caller[name]):
                self._close((name, session_id))

    async def _look(self) -> None:
        while True:
            try:
                self._keys.change()
                self.wipe_ended()
            except Exception as error:  # noqa: BLE001 - no fault may end the wiping by time
                log.error("keys of sessions were not changed: %s", describe(error))
            await asyncio.sleep(LOOK_S)
