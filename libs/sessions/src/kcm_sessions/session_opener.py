"""Opening a session with one instance, the *peer*, and the session.

The peer's statement of its key is verified by the roster, before the ticket and once more after the
last wait: the roster may change meanwhile. The sealed reply to the ticket proves that the peer has
the key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_runtime.clock import Clock
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.session import OPENED, SealedReply, SessionKey, Ticket, reason_claimed
from kcm_sealing.hpke import HpkePublic
from kcm_sealing.memory import Lend, SecretRandomness
from kcm_sealing.session import Session, TicketInfo, open_session_as_caller
from kcm_trust.verify import Untrusted

from kcm_sessions.caller import Caller

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""Takes subject, body and timeout in seconds; returns the reply's body or raises ``KcmError``."""

OPEN_S: Final = 0.5
"""Seconds in which a peer answers each of the two requests that open a session: it never waits for
anything. Much less than a request, so that there is time for another one."""


TICKETS_AT_ONCE: Final = 8
"""Tickets for one peer that may be made without a pause."""

TICKET_EVERY_S: Final = 2.0
"""Seconds for each further ticket. Any client of the broker can forge what makes a caller open a
session again, and a peer takes a bounded number of tickets for one key."""


class Elsewhere(KcmError):
    """A peer did not take the request: another one, or a new session, may."""

    def __init__(
        self, peer: str, error: KcmError, *, away: bool = False, sent: bool = True
    ) -> None:
        """``away``: the peer was not reached. ``sent``: it may have the request itself."""
        super().__init__(error.code, error.detail)
        self.peer: Final = peer
        self.error: Final = error
        self.away: Final = away
        self.sent: Final = sent


class NotOpened(Elsewhere):
    """A peer refused, without a seal, to open a session for this caller.

    ``claim`` is one of ``session.REASONS``, or empty if the peer gives none of them.
    """

    def __init__(self, peer: str, refusal: KcmError) -> None:
        super().__init__(peer, unsealed(peer, refusal), sent=False)
        self.claim: Final = reason_claimed(refusal.detail)


@dataclass(slots=True)
class PeerSession:
    """A session with one instance."""

    peer: str
    public_key: bytes
    """The key on the roster with which the peer signed its session key."""
    keys: Session
    opened: float
    """``clock.elapsed`` before its ticket was made."""
    incarnation: bytes
    """The peer's incarnation, which has the other half of the session."""
    counter: int = 0
    in_flight: int = 0
    answered: float = 0.0
    """``clock.elapsed`` of the last reply that the peer sealed."""
    turn: int = 0
    """Which choice was the last one that took it: of equally busy peers, the other is next."""
    forgotten: bool = False

    def begin(self) -> int:
        """Begin a request; returns its counter."""
        self.counter += 1
        self.in_flight += 1
        return self.counter

    def end(self) -> None:
        """End a request; the last one of a forgotten session wipes its keys."""
        self.in_flight -= 1
        if self.forgotten and not self.in_flight:
            self.keys.close()

    def forget(self) -> None:
        """Take no more requests; those in flight keep the keys until they are answered."""
        self.forgotten = True
        if not self.in_flight:
            self.keys.close()


def unsealed(peer: str, error: KcmError) -> KcmError:
    """Return what a refusal without a seal means: another instance, or a new session, may help.

    Any client of the broker can send one, so nothing else of its code counts. Of its text, only a
    reason of the protocol is shown.
    """
    code = error.code if error.code in (Code.UNKNOWN_SESSION, Code.BUSY) else Code.UNAVAILABLE
    why = reason_claimed(error.detail) or "its log says why"
    return KcmError(code, f"{peer} refuses without a seal ({error.code.value}): {why}")


class SessionOpener:
    """Opens sessions with instances of this region."""

    def __init__(
        self,
        ask: Ask,
        me: Caller,
        clock: Clock,
        randomness: SecretRandomness,
        lend: Lend,
        open_s: float = OPEN_S,
    ) -> None:
        """``lend`` makes the memory of a session, which owns it."""
        self._ask: Final = ask
        self._open_s: Final = open_s
        self._me: Final = me
        self._clock: Final = clock
        self._random: Final = randomness
        self._lend: Final = lend
        self._failures: Final[dict[str, KcmError]] = {}
        """What a peer said when it last opened no session."""
        self._tickets_until: Final[dict[str, float]] = {}
        """When the tickets that were made for a peer are used up, at one in ``TICKET_EVERY_S``."""

    async def open(self, peer: str) -> PeerSession:
        """Ask for the peer's key, and send a ticket; raises ``Elsewhere``."""
        try:
            raw = await self._request(peer, "key", b"")
            key = self._verified(peer, raw)
            self._count_ticket(peer)
            opened = self._clock.elapsed()
            keys, ticket = self._ticket(key)
            try:
                await self._prove(peer, keys, encode(ticket))
                self._verified(peer, raw)  # by the roster in force: it may have changed meanwhile
                public_key = self._me.peer(peer).public_key
            except BaseException:
                keys.close()
                raise
        except Elsewhere:
            raise
        except KcmError as error:
            self._failures[peer] = error
            raise _refused(peer, error) from None
        except (InvalidTag, ValueError, Untrusted):
            text = f"the key that {peer} offers is not valid, or it does not have it"
            raise _not_opened(peer, text) from None
        self._failures.pop(peer, None)
        return PeerSession(peer, public_key, keys, opened, key.incarnation)

    async def incarnation(self, peer: str) -> bytes:
        """Return the incarnation that offers a key as this peer now; raises ``Elsewhere``."""
        raw = await self._request(peer, "key", b"")
        try:
            return self._verified(peer, raw).incarnation
        except Elsewhere:
            raise
        except KcmError as error:
            raise Elsewhere(peer, unsealed(peer, error), sent=False) from None

    def _count_ticket(self, peer: str) -> None:
        """Count a ticket; raises ``Elsewhere`` for one too many."""
        now = self._clock.elapsed()
        until = max(now, self._tickets_until.get(peer, now))
        if until - now >= TICKETS_AT_ONCE * TICKET_EVERY_S:
            # The cause of the last one is what helps: this is only its consequence.
            before = self._failures.get(peer)
            text = f"too many sessions with {peer} were opened just now"
            raise _refused(peer, before) if before else _not_opened(peer, text)
        self._tickets_until[peer] = until + TICKET_EVERY_S

    async def _prove(self, peer: str, keys: Session, ticket: bytes) -> None:
        """Send a ticket; the sealed reply proves that the peer has the key."""
        reply = decode_reply(SealedReply, await self._request(peer, "open", ticket))
        inside = memoryview(bytearray(OPENED.size))
        keys.open_reply(sha256(ticket).digest(), reply.sealed, inside)
        (version,) = OPENED.unpack(inside)
        self._me.told(peer, version)

    async def _request(self, peer: str, verb: str, body: bytes) -> bytes:
        subject = self._me.subject_of(self._me.region, peer, verb)
        try:
            return await self._ask(subject, body, self._open_s)
        except KcmError as error:
            away = error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
            raise Elsewhere(peer, error, away=away, sent=False) from None

    def _verified(self, peer: str, raw: bytes) -> SessionKey:
        """Verify a peer's key; raises ``Elsewhere``, or what a failure in its place says."""
        try:
            key = self._me.verifier().session_key(raw)
        except Untrusted as error:
            decode_reply(SealedReply, raw)  # raises what it says, if it is a failure
            raise _not_opened(peer, f"the key of {peer} is not trusted: {error}") from None
        if (key.instance, key.role, key.region) != (peer, self._me.peers, self._me.region):
            named = f"{key.instance} ({key.role.value}, {key.region})"
            raise _not_opened(peer, f"{named} offers its key, not {peer}")
        age_ms = self._clock.unix_ms() - key.issued_ms
        if not -limits.SKEW_MS <= age_ms <= key.valid_ms + limits.SKEW_MS:
            age = f"{age_ms / 1000:.0f} s old"
            raise _not_opened(peer, f"the key of {peer} is {age}: compare its clock with this one")
        return key

    def _ticket(self, key: SessionKey) -> tuple[Session, Ticket]:
        now_ms = self._clock.unix_ms()
        info = TicketInfo(
            region=self._me.region,
            callee=key.instance,
            key_id=key.key_id,
            caller=self._me.name,
            incarnation=self._me.incarnation,
            session_id=self._random.public(limits.ID_SIZE),
            issued_ms=now_ms,
            expiry_ms=now_ms + limits.TICKET_MAX_MS,
        )
        public = HpkePublic.from_bytes(key.public)
        session, ciphertext, signature = open_session_as_caller(
            info, public, self._me.sign, self._lend(), self._random.fill
        )
        return session, Ticket(
            v=1,
            caller=info.caller,
            incarnation=info.incarnation,
            session_id=info.session_id,
            key_id=info.key_id,
            issued_ms=info.issued_ms,
            expiry_ms=info.expiry_ms,
            ciphertext=ciphertext,
            signature=signature,
        )


def _refused(peer: str, error: KcmError) -> Elsewhere:
    """Return what a refusal without a seal means while a session is opened."""
    if error.code is Code.FORBIDDEN:
        return NotOpened(peer, error)
    return Elsewhere(peer, unsealed(peer, error), sent=False)


def _not_opened(peer: str, text: str) -> Elsewhere:
    return Elsewhere(peer, KcmError(Code.UNAVAILABLE, text), sent=False)
