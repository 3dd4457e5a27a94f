"""Sessions with two of the region's Cores.

A request goes to the session with fewer requests in flight. If a Core cannot be reached, or refuses
without a seal, the other one is asked, and a third Core takes the place of the first. A session is
replaced at half of its lifetime, in the background, so that no request waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_keymem.random import KeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.tasks import TaskSet
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

WANTED: Final = 2
"""Cores with which a Gateway holds sessions."""

RENEW_S: Final = limits.TICKET_MAX_MS / 2000
"""Seconds of age at which a session is replaced."""

END_S: Final = limits.TICKET_MAX_MS / 1000 - 60
"""Seconds of age from which a session takes no request: no ticket ends before its request does."""

AVOID_S: Final = 1.0
"""Seconds for which a Core that could not be reached is asked only if there is no other."""

SEEK_S: Final = 5.0
"""Seconds between two attempts to open another session in the background."""

OPEN_S: Final = 0.8
"""Seconds in which a Core answers each of the two requests that open a session: it never waits for
anything. Less than half of a request, so that there is time for another Core."""

_CLOCK_STEP_MS: Final = 1_000
"""Milliseconds by which the wall clock and the elapsed clock may diverge in a session. A Core
compares the ticket with a clock, so after a step of the wall clock the session is replaced."""


class Elsewhere(KcmError):
    """A Core did not take the request: another Core, or a new session, may."""

    def __init__(self, core: str, error: KcmError) -> None:
        super().__init__(error.code, error.detail)
        self.core: Final = core


class Away(Elsewhere):
    """The request did not reach this Core."""


@dataclass(slots=True)
class CoreSession:
    """A session with one Core."""

    core: str
    keys: Session
    opened: float
    """``clock.elapsed`` before its ticket was made."""
    counter: int = 0
    in_flight: int = 0

    def next_counter(self) -> int:
        """Return the counter of the next request."""
        self.counter += 1
        return self.counter


def unsealed(error: KcmError) -> KcmError:
    """Return what a refusal without a seal means: its code counts only if it asks to go elsewhere.

    Any client of the broker can send one.
    """
    if error.code in UNSEALED:
        return error
    return KcmError(Code.UNAVAILABLE, f"a refusal without a seal was ignored ({error.code.value})")


class CoreSessions:
    """Opens sessions, and chooses one for each request."""

    def __init__(
        self, ask: Ask, me: InstanceContext, clock: Clock, randomness: KeyRandomness
    ) -> None:
        self._ask: Final = ask
        self._me: Final = me
        self._clock: Final = clock
        self._random: Final = randomness
        self._open: Final[dict[str, CoreSession]] = {}
        self._opening: Final[dict[str, asyncio.Task[CoreSession]]] = {}
        self._avoid: Final[dict[str, float]] = {}
        """Until when Cores are avoided, by ``clock.elapsed``."""
        self._seek_at = 0.0
        self._tasks: Final = TaskSet()
        self._closed = False
        me.rosters.listen(self._judge_again)

    @property
    def cores(self) -> list[str]:
        """The Cores of this region that may act, in an order of this Gateway's own."""
        region = self._me.region
        names = [
            one.instance
            for one in self._me.verifier.roster.instances
            if (one.role, one.region) == (Role.CORE, region) and one.retired is None
        ]
        return sorted(names, key=self._rank)

    async def choose(self, without: Collection[str] = ()) -> CoreSession:
        """Return a session with a Core that is not in ``without``; opens one if there is none.

        Raises ``KcmError``: ``Elsewhere`` for the Core that could not be reached last.
        """
        if self._closed:
            raise KcmError(Code.UNAVAILABLE, "the client of the Cores is closed")
        self._end_old()
        ready = [one for one in self._open.values() if one.core not in without]
        calm = [one for one in ready if not self._avoided(one.core)]
        if calm or ready:
            chosen = min(calm or ready, key=lambda one: one.in_flight)
        else:
            chosen = await self._first(without)
        self._seek()
        return chosen

    def failed(self, core: str) -> None:
        """Avoid a Core for a moment."""
        self._avoid[core] = self._clock.elapsed() + AVOID_S

    def forget(self, session: CoreSession) -> None:
        """Use a session no more; requests in flight keep its keys until they are answered."""
        if self._open.get(session.core) is session:
            del self._open[session.core]

    def close(self) -> None:
        """Wipe the keys of all sessions, and open no more."""
        self._closed = True
        self._tasks.close()
        for task in self._opening.values():
            task.cancel()
        for one in self._open.values():
            one.keys.close()
        self._open.clear()

    def others(self, without: Collection[str]) -> bool:
        """Whether there is a Core that is not in ``without``."""
        return any(name not in without for name in self.cores)

    async def _first(self, without: Collection[str]) -> CoreSession:
        """Open a session with the first Core of this Gateway's order, avoided ones last."""
        names = [name for name in self.cores if name not in without]
        if not names:
            region = self._me.region
            raise KcmError(Code.UNAVAILABLE, f"the roster has no other Core in region {region}")
        name = min(names, key=self._avoided)
        try:
            return await self._opened(name)
        except Elsewhere:
            self.failed(name)
            raise

    def _seek(self) -> None:
        """Open another session, or replace one that is half over, in the background."""
        now = self._clock.elapsed()
        if not self._open or now < self._seek_at or len(self._tasks):
            return
        old = [one.core for one in self._open.values() if now - one.opened >= RENEW_S]
        missing = WANTED - len(self._open)
        if not old and missing <= 0:
            return
        self._seek_at = now + SEEK_S
        new = [name for name in self.cores if name not in self._open and not self._avoided(name)]
        wanted = [*old, *new[: max(0, missing)]]
        if wanted:
            self._tasks.spawn(self._open_each(wanted))

    async def _open_each(self, names: Collection[str]) -> None:
        for name in names:
            try:
                await self._opened(name)
            except KcmError:
                self.failed(name)

    async def _opened(self, core: str) -> CoreSession:
        """Open a session with this Core; concurrent callers share one attempt."""
        task = self._opening.get(core)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._begin(core), name=core)
            self._opening[core] = task
            task.add_done_callback(self._has_begun)
        return await asyncio.shield(task)

    def _has_begun(self, task: asyncio.Task[CoreSession]) -> None:
        self._opening.pop(task.get_name(), None)
        if not task.cancelled():
            task.exception()  # a caller that still waits gets it, too

    async def _begin(self, core: str) -> CoreSession:
        """Ask for the Core's key, and send a ticket; raises ``Elsewhere``."""
        try:
            key = self._verified(core, await self._request(core, "key", b""))
            opened = self._clock.elapsed()
            keys, ticket = self._ticket(key)
            body = encode(ticket)
            try:
                reply = decode_reply(CoreReply, await self._request(core, "open", body))
                keys.open_reply(sha256(body).digest(), reply.sealed, memoryview(bytearray()))
            except BaseException:
                keys.close()
                raise
        except Elsewhere:
            raise
        except KcmError as error:
            raise Elsewhere(core, unsealed(error)) from None
        except InvalidTag:
            text = f"{core} does not have the key that it offers"
            raise Elsewhere(core, KcmError(Code.UNAVAILABLE, text)) from None
        if self._closed:
            keys.close()
            raise KcmError(Code.UNAVAILABLE, "the client of the Cores is closed")
        session = self._open[core] = CoreSession(core, keys, opened)
        return session

    async def _request(self, core: str, verb: str, body: bytes) -> bytes:
        subject = subjects.core_session(self._me.region, core, verb)
        try:
            return await self._ask(subject, body, OPEN_S)
        except KcmError as error:
            kind = Away if error.code is Code.UNAVAILABLE else Elsewhere
            raise kind(core, error) from None

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

    def _end_old(self) -> None:
        """Forget sessions that are almost over, and all after a step of the wall clock."""
        now, now_ms = self._clock.elapsed(), self._clock.unix_ms()
        for one in list(self._open.values()):
            age_s = now - one.opened
            step_ms = now_ms - one.keys.info.issued_ms - age_s * 1000
            if not 0 <= age_s < END_S or abs(step_ms) >= _CLOCK_STEP_MS:
                del self._open[one.core]

    def _judge_again(self, names: frozenset[str]) -> None:
        """Forget sessions with Cores whose roster entry changed."""
        for name in names & self._open.keys():
            del self._open[name]

    def _avoided(self, core: str) -> bool:
        return self._clock.elapsed() < self._avoid.get(core, 0.0)

    def _rank(self, core: str) -> bytes:
        """Spread Gateways over the Cores: each has its own order."""
        return sha256(self._me.incarnation + core.encode()).digest()
