"""Opening a session with one Core, and the session.

The Core's statement of its key is verified by the roster, before the ticket and once more after the
last wait: the roster may change meanwhile. The sealed reply to the ticket proves that the Core has
the key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_keymem.random import KeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.roster import Role
from kcm_schemas.session import UNSEALED, SessionKey, Ticket
from kcm_schemas.vault import CoreReply
from kcm_sealing.hpke import HpkePublic
from kcm_sealing.session import Session, TicketInfo, open_session_as_caller
from kcm_trust.verify import Untrusted

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""Takes subject, body and timeout in seconds; returns the reply's body or raises ``KcmError``."""

OPEN_S: Final = 0.5
"""Seconds in which a Core answers each of the two requests that open a session: it never waits for
anything. Much less than a request, so that there is time for another Core."""


class Elsewhere(KcmError):
    """A Core did not take the request: another Core, or a new session, may."""

    def __init__(
        self, core: str, error: KcmError, *, away: bool = False, sent: bool = True
    ) -> None:
        """``away``: the Core was not reached. ``sent``: it may have the request itself."""
        super().__init__(error.code, error.detail)
        self.core: Final = core
        self.away: Final = away
        self.sent: Final = sent


@dataclass(slots=True)
class CoreSession:
    """A session with one Core."""

    core: str
    keys: Session
    opened: float
    """``clock.elapsed`` before its ticket was made."""
    counter: int = 0
    in_flight: int = 0
    answered: float = 0.0
    """``clock.elapsed`` of the last reply that the Core sealed."""
    turn: int = 0
    """Which choice was the last one that took it: of equally busy Cores, the other is next."""
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


def unsealed(error: KcmError) -> KcmError:
    """Return what a refusal without a seal means: its code counts only if it asks to go elsewhere.

    Any client of the broker can send one.
    """
    if error.code in UNSEALED:
        return error
    return KcmError(Code.UNAVAILABLE, f"a refusal without a seal was ignored ({error.code.value})")


class SessionOpener:
    """Opens sessions with Cores of this region."""

    def __init__(
        self, ask: Ask, me: InstanceContext, clock: Clock, randomness: KeyRandomness
    ) -> None:
        self._ask: Final = ask
        self._me: Final = me
        self._clock: Final = clock
        self._random: Final = randomness

    async def open(self, core: str) -> CoreSession:
        """Ask for the Core's key, and send a ticket; raises ``Elsewhere``."""
        try:
            raw = await self._request(core, "key", b"")
            key = self._verified(core, raw)
            opened = self._clock.elapsed()
            keys, ticket = self._ticket(key)
            try:
                await self._prove(core, keys, encode(ticket))
                self._verified(core, raw)  # by the roster in force: it may have changed meanwhile
            except BaseException:
                keys.close()
                raise
        except Elsewhere:
            raise
        except KcmError as error:
            raise Elsewhere(core, unsealed(error), sent=False) from None
        except (InvalidTag, ValueError):
            text = f"the key that {core} offers is not valid, or it does not have it"
            raise Elsewhere(core, KcmError(Code.UNAVAILABLE, text), sent=False) from None
        return CoreSession(core, keys, opened)

    async def _prove(self, core: str, keys: Session, ticket: bytes) -> None:
        """Send a ticket; the sealed reply proves that the Core has the key."""
        reply = decode_reply(CoreReply, await self._request(core, "open", ticket))
        keys.open_reply(sha256(ticket).digest(), reply.sealed, memoryview(bytearray()))

    async def _request(self, core: str, verb: str, body: bytes) -> bytes:
        subject = subjects.core_session(self._me.region, core, verb)
        try:
            return await self._ask(subject, body, OPEN_S)
        except KcmError as error:
            away = error.code is Code.UNAVAILABLE
            raise Elsewhere(core, error, away=away, sent=False) from None

    def _verified(self, core: str, raw: bytes) -> SessionKey:
        """Verify a Core's key; raises ``unavailable``, or what a failure in its place says."""
        try:
            key = self._me.verifier.session_key(raw)
        except Untrusted as error:
            decode_reply(CoreReply, raw)  # raises what it says, if it is a failure
            raise KcmError(Code.UNAVAILABLE, f"the key of {core} is not trusted: {error}") from None
        if (key.instance, key.role, key.region) != (core, Role.CORE, self._me.region):
            text = f"{key.instance} ({key.role.value}, {key.region}) offers its key, not {core}"
            raise KcmError(Code.UNAVAILABLE, text)
        age_ms = self._clock.unix_ms() - key.issued_ms
        if not -limits.SKEW_MS <= age_ms <= key.valid_ms + limits.SKEW_MS:
            text = (
                f"the key of {core} is {age_ms / 1000:.0f} s old: compare its clock with this one"
            )
            raise KcmError(Code.UNAVAILABLE, text)
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
            info, public, self._me.identity.sign_raw, Arena(), self._random.fill
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
