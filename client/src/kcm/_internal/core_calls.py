"""An operator's calls to the Cores of one region, each in a session with one incarnation.

A request is signed for one incarnation of one Core, so that no other one executes it. While no
reply comes, the same statement is sealed and sent again to the same incarnation, which executes it
once. If that Core restarted, or does not even say which incarnation it is, the order is signed
again, for another Core: the first one may have executed it, but a repetition changes nothing.

What is not sealed can come from any client of the broker. It only makes the caller ask another
Core, or open a new session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from kcm_runtime.clock import Clock
from kcm_schemas import data_subjects, limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import OPEN_OPERATOR
from kcm_schemas.session import SealedAdmin
from kcm_sealing.memory import SecretRandomness
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.replies import Replies
from kcm_sessions.session_opener import Elsewhere, PeerSession

from kcm._internal.retry import AGAIN_S, repeated
from kcm._internal.rpc import Send
from kcm._internal.session_memory import SessionEnded, SessionMemory
from kcm.errors import Discarded, ServiceError, Unreached, error_for, typed

OPEN_S: Final = 1.0
"""Seconds in which a Core answers each request that begins a session. Longer than for a caller in
the region: an operator may be on another continent."""

REUSE_MS: Final = 1_000
"""Milliseconds until its deadline that a request without a reply has at least, to be sent again."""

_STRANGE: Final = (
    "a Core opens no session for this operator, or forgets it at once: compare the clocks of both,"
    " and look whether the Core restarts again and again"
)

Sign = Callable[[str, bytes, int], bytes]
"""Makes the signed statement for a Core, its incarnation and a deadline in Unix milliseconds."""


@dataclass(slots=True)
class Order:
    """What an operator asks, and the requests for it that have no reply yet.

    With ``at``, only that Core is asked.
    """

    noun: str
    verb: str
    sign: Sign
    at: str = ""
    unanswered: dict[tuple[str, bytes], tuple[bytes, int]] = field(default_factory=dict)
    """Statement and deadline, by Core and incarnation."""
    passed: set[str] = field(default_factory=set)
    """Cores that replied that they cannot serve it now: the others are asked before them."""

    def request(self, session: PeerSession, now_ms: int, deadline_ms: int) -> bytes:
        """Return the statement for the incarnation of a session: the same one while it is valid."""
        to = session.peer, session.incarnation
        statement, until_ms = self.unanswered.get(to, (b"", 0))
        if until_ms < now_ms + REUSE_MS:
            statement = self.sign(*to, deadline_ms)
            self.unanswered[to] = statement, deadline_ms
        return statement

    def pending(self, now_ms: int) -> bool:
        """Whether a Core that did not reply may still execute the order."""
        return any(until_ms > now_ms for _, until_ms in self.unanswered.values())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Core sealed: its signed reply, which the caller verifies, to this statement."""

    core: str
    request: bytes
    reply: bytes


def subject_of(region: str, core: str, verb: str) -> str:
    """Return the subject on which a Core serves what begins an operator's session."""
    return data_subjects.core_session(region, core, OPEN_OPERATOR if verb == "open" else verb)


class CoreCalls:
    """Asks one Core of a region, and another one if that one does not take the request."""

    def __init__(self, me: Caller, send: Send, clock: Clock, randomness: SecretRandomness) -> None:
        """``me`` is the operator as the caller of the Cores of one region."""
        self._region: Final = me.region
        self._send: Final = send
        self._clock: Final = clock
        self._random: Final = randomness
        self._sessions: Final = PeerSessions(send, me, clock, randomness, SessionMemory, OPEN_S)
        self._replies: Final = Replies(self._sessions, _STRANGE)

    async def ask(self, order: Order, end: float) -> Answer:
        """Return the first reply that a Core seals, until ``end`` by the clock's ``elapsed``.

        Raises ``ServiceError``: a failure that another attempt may not have, or a sealed refusal.
        """
        refused: list[Elsewhere] = []
        without = {*(self._all_but(order.at) if order.at else ()), *order.passed}
        if not self._sessions.others(without):
            without -= order.passed
        try:
            while True:
                try:
                    session = await self._choose(without, end)
                    return await self._at(session, order, end, without)
                except Elsewhere as error:
                    refused.append(error)
                    without.add(error.peer)
                if not self._sessions.others(without):
                    order.passed.clear()
                    raise _failure(refused)
        except KcmError as error:
            raise typed(error) from None

    def cannot(self, core: str, order: Order) -> None:
        """Ask other Cores before this one: it replied that it is busy, or cannot serve now."""
        order.passed.add(core)
        self._sessions.failed(core)

    def close(self) -> None:
        """Wipe the keys of the sessions."""
        self._sessions.close()

    async def _at(
        self, session: PeerSession, order: Order, end: float, without: Collection[str]
    ) -> Answer:
        """Ask one incarnation of a Core, until it is known that it is gone or silent."""
        core, incarnation = session.peer, session.incarnation
        now_ms, left_s = self._clock.unix_ms(), end - self._clock.elapsed()
        request = order.request(session, now_ms, now_ms + max(1, int(left_s * 1000)))
        to = partial(self._deliver, core, incarnation, order, request, end)
        tasks: list[asyncio.Future[bytes]] = [asyncio.ensure_future(repeated(to))]
        if self._sessions.others({*without, core}):
            tasks.append(asyncio.ensure_future(self._watch(core, incarnation)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reply = (tasks[0] if tasks[0] in done else tasks[1]).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        order.unanswered.pop((core, incarnation), None)
        if self._clock.elapsed() > end:
            raise Discarded("the reply came too late and was discarded")
        return Answer(core, request, reply)

    async def _watch(self, core: str, incarnation: bytes) -> bytes:
        """Raise ``Elsewhere`` as soon as a Core does not say that it is this incarnation."""
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                alive = await self._sessions.incarnation(core) == incarnation
            except Elsewhere:
                alive = False
            if not alive:
                self._sessions.failed(core)
                raise _gone(core)

    async def _deliver(
        self, core: str, incarnation: bytes, order: Order, request: bytes, end: float
    ) -> bytes:
        """Seal a statement for one incarnation; opens another session with it if that helps."""
        tries = 2
        while True:
            tries -= 1
            session = await self._choose(self._all_but(core), end)
            if session.incarnation != incarnation:
                raise _gone(core)
            try:
                return await self._exchange(session, order, request, end)
            except Elsewhere as error:
                if error.code is not Code.UNKNOWN_SESSION or not tries:
                    raise
            except SessionEnded:
                if not tries:
                    raise _gone(core) from None

    async def _exchange(
        self, session: PeerSession, order: Order, request: bytes, end: float
    ) -> bytes:
        sent, counter = self._clock.elapsed(), session.begin()
        try:
            draft = SealedAdmin(
                v=1,
                caller=session.keys.info.caller,
                session_id=session.keys.info.session_id,
                counter=counter,
                sealed=b"",
            )
            clear = draft.clear(self._region, order.noun, order.verb)
            nonce = self._random.public(limits.NONCE_SIZE)
            sealed = session.keys.seal_request(counter, clear, memoryview(request), nonce)
            message = encode(draft.model_copy(update={"sealed": sealed}))
            place = (self._region, order.noun, order.verb, session.peer)
            try:
                answer = await self._send(subjects.admin_at(*place), message, self._left_s(end))
            except KcmError as error:
                raise self._replies.unreached(session, error, sent) from None
            digest = session.keys.request_digest(counter, clear)
            return self._replies.read(session, answer, digest, _room).tobytes()
        finally:
            session.end()

    async def _choose(self, without: Collection[str], end: float) -> PeerSession:
        try:
            async with asyncio.timeout(self._left_s(end)):
                return await self._sessions.choose(without)
        except TimeoutError:
            text = "no session with a Core began in time"
            raise KcmError(Code.DEADLINE_EXCEEDED, text) from None

    def _left_s(self, end: float) -> float:
        left_s = end - self._clock.elapsed()
        if left_s <= 0:
            text = "the deadline passed before the request was sent"
            raise KcmError(Code.DEADLINE_EXCEEDED, text)
        return left_s

    def _all_but(self, core: str) -> list[str]:
        return [name for name in self._sessions.names if name != core]


def _gone(core: str) -> Elsewhere:
    text = f"{core} took a request, but does not answer any more"
    return Elsewhere(core, KcmError(Code.UNAVAILABLE, text))


def _failure(refused: list[Elsewhere]) -> ServiceError:
    """Return the refusal of a Core that was reached, or why none was."""
    for error in refused:
        if error.code is Code.UNKNOWN_SESSION:
            return error_for(Code.UNAVAILABLE, _STRANGE)
        if not error.away:
            return error_for(error.code, error.detail)
    return Unreached(refused[-1].detail)


def _room(size: int) -> memoryview | None:
    return memoryview(bytearray(size)) if size <= limits.BODY_MAX else None
