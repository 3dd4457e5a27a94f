"""The client of the region's Cores: wrap and unwrap of data keys, over sealed sessions.

A reply may be used until its answer lease ends, which is counted from the sending of the request
that it answers: a delayed reply contains nothing that is still valid.

Transient failures are retried before the caller sees them: a Core that cannot be reached, that is
busy or that cannot serve, at another Core; a session that the Core does not know, and a lease that
has ended or is about to end, once. While the broker or every Core is away, for example during a
reconnection, the request is repeated for a moment with back-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kcm_keymem.arena import Arena, Purged, ScratchPool
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_runtime.backoff import Backoff
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_schemas import data_subjects, limits
from kcm_schemas.asks import AskedKeys
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.vault import (
    REPLY_HEAD,
    STATUS_FORBIDDEN,
    STATUS_OK,
    STATUS_TAMPERED,
    STATUS_UNKNOWN_ASK,
    CoreRequest,
    Purpose,
)
from kcm_sealing.memory import wipe
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.replies import Replies
from kcm_sessions.session_opener import OPEN_S, Ask, Elsewhere, PeerSession

from kcm_gateway.keys.asks import AskPart
from kcm_gateway.keys.lease import SHORTEST_S, Lease, too_short

Sleep = Callable[[float], Awaitable[None]]
"""Waits for a number of seconds."""

AWAY_S: Final = 1.0
"""Seconds for which a request is repeated while the broker or the Cores are away, counted from its
first attempt: a reconnection usually takes less, and waiting requests use up a Gateway's room."""

_AWAY_FIRST_S: Final = 0.02
"""Seconds of the first wait, half of it random; each further wait is twice as long."""

_AWAY_TIMES_MAX: Final = 6
"""The most repetitions: their waits fill ``AWAY_S``."""

_HEAD: Final = REPLY_HEAD.size
_STATUS: Final = {
    STATUS_TAMPERED: Code.TAMPERED,
    STATUS_UNKNOWN_ASK: Code.UNKNOWN_ASK,
    STATUS_FORBIDDEN: Code.FORBIDDEN,
}
_ALL_OK: Final = bytes((STATUS_OK,)) * limits.KEYS_MAX
_STRANGE: Final = (
    "a Core opens no session for this Gateway, or forgets it at once: compare the clocks of both,"
    " and look whether the Core restarts again and again"
)


@dataclass(frozen=True, slots=True)
class Unwrapping:
    """Wrapped keys of one L3 version, 72 bytes each, and what applications ask for them.

    ``parts`` has the asks in the order of the keys, each with its number of keys. It is empty if
    no application asks with a tag. All of them have tags for the same Cores.
    """

    tenant: str
    service: str
    purpose: Purpose
    l3_version: int
    blobs: bytes
    parts: Sequence[tuple[AskPart, int]] = ()

    def plain(self, core: str) -> memoryview:
        """Return what a request to this Core seals."""
        if not self.parts:
            return memoryview(self.blobs)
        asked = AskedKeys(asked=[part.asked(core, count) for part, count in self.parts])
        return memoryview(self.blobs + encode(asked))


@dataclass(frozen=True, slots=True)
class _Work:
    """One batch: ``plain`` returns what the request to a Core seals.

    ``cores`` are those that can serve it; empty if every Core can.
    """

    operation: Literal["wrap", "unwrap"]
    tenant: str
    service: str
    purpose: Purpose
    l3_version: int
    count: int
    plain: Callable[[str], memoryview]
    cores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a Core did not take the request. Not the exception: it would keep its frames alive."""

    code: Code
    detail: str
    away: bool


class CoreClient:
    """Wraps and unwraps through one of two Cores, and through another one if it does not serve."""

    def __init__(
        self,
        ask: Ask,
        me: Caller,
        clock: Clock,
        randomness: KeyRandomness,
        timeout_s: float,
        sleep: Sleep = asyncio.sleep,
        scratch: ScratchPool | None = None,
    ) -> None:
        """``scratch`` lends the locked memory in which replies are opened."""
        self._ask: Final = ask
        self._sessions: Final = PeerSessions(ask, me, clock, randomness, Arena)
        self._replies: Final = Replies(self._sessions, _STRANGE)
        self._region: Final = me.region
        self._clock: Final = clock
        self._random: Final = randomness
        self._timeout_s: Final = timeout_s
        self._sleep: Final = sleep
        self._scratch: Final = scratch if scratch is not None else ScratchPool()

    async def wrap(
        self, tenant: str, service: str, purpose: Purpose, keys: memoryview
    ) -> tuple[Lease, bytes]:
        """Wrap n keys (32 bytes each) under the current L3; returns n blobs of 72 bytes."""
        count = len(keys) // limits.KEY_SIZE
        size = _HEAD + count * limits.WRAPPED_SIZE
        out = memoryview(bytearray(size))  # wrapped keys are not secret
        work = _Work("wrap", tenant, service, purpose, 0, count, lambda _: keys)
        lease = await self._call(work, out)
        return lease, out[_HEAD:].tobytes()

    async def unwrap(self, wanted: Unwrapping, out: memoryview) -> tuple[Lease, dict[int, Code]]:
        """Unwrap n keys into ``out`` (n times 32 bytes).

        Returns a code for each position without a key: ``tampered`` for one that does not
        authenticate, ``unknown_ask`` and ``forbidden`` for an ask as a whole.
        """
        count = len(wanted.blobs) // limits.WRAPPED_SIZE
        keys_at = _HEAD + count
        with self._scratch.borrow(keys_at + count * limits.KEY_SIZE) as reply:
            work = _Work(
                "unwrap",
                wanted.tenant,
                wanted.service,
                wanted.purpose,
                wanted.l3_version,
                count,
                wanted.plain,
                wanted.parts[0][0].cores if wanted.parts else (),
            )
            lease = await self._call(work, reply)
            out[:] = reply[keys_at:]
            status = reply[_HEAD:keys_at].tobytes()
            if status == _ALL_OK[:count]:
                return lease, {}
            return lease, {
                position: _STATUS.get(one, Code.INTERNAL)
                for position, one in enumerate(status)
                if one != STATUS_OK
            }

    async def carry(self, core: str, verb: str, body: bytes) -> bytes:
        """Pass on what begins a session of an application with a Core; returns the Core's reply.

        Both ends verify it: this Gateway cannot read or replace it. Raises ``KcmError``.
        """
        if core not in self._sessions.names:
            raise KcmError(Code.UNAVAILABLE, f"{core} may not act: it is retired or held")
        return await self._ask(data_subjects.core_session(self._region, core, verb), body, OPEN_S)

    def close(self) -> None:
        """Wipe the keys of all sessions, and make no request any more."""
        self._sessions.close()

    async def _call(self, work: _Work, out: memoryview) -> Lease:
        """Send a request, with retries that can help; returns a lease with which work may begin."""
        short = False
        away = Backoff(_AWAY_FIRST_S, AWAY_S, jitter=(0.5, 1.0), uniform=self._uniform)
        times, since = 0, self._clock.elapsed()
        refused: dict[str, _Refusal] = {}
        forgotten: set[str] = set()
        while True:
            cannot = self._without_ask(work)
            try:
                lease = await self._exchange({*refused, *cannot}, work, out)
            except Elsewhere as error:
                if error.code is Code.UNKNOWN_SESSION and error.peer not in forgotten:
                    forgotten.add(error.peer)
                    continue
                spent = self._clock.elapsed() - since
                refused[error.peer] = _Refusal(error.code, error.detail, error.away)
                # What hung for long leaves no time for another Core, unless nothing was sent.
                cannot = self._without_ask(work)  # the roster may have changed meanwhile
                in_time = not error.sent or spent < self._timeout_s / 2
                if in_time and self._sessions.others({*refused, *cannot}):
                    continue
                wait = away.next_s()
                late = spent + wait >= min(AWAY_S, self._timeout_s)
                late = late or times >= _AWAY_TIMES_MAX
                all_away = all(one.away for one in refused.values())
                if late and all_away and cannot:
                    raise KcmError(Code.UNKNOWN_ASK) from None  # another Core may be reached
                if late or not all_away:
                    raise _reason(refused.values()) from None
                refused.clear()
                times += 1
                await self._sleep(wait)
            else:
                now = self._clock.elapsed()
                if not lease.too_short(now):
                    return lease
                wipe(out)  # before any await: a purge does not reach these keys
                if short:
                    raise _refusal(lease, now)
                short = True

    def _without_ask(self, work: _Work) -> set[str]:
        """Return the Cores for which applications did not ask; raises ``unknown_ask`` for all."""
        names = set(self._sessions.names)
        cannot = names.difference(work.cores) if work.cores else set()
        if cannot == names and work.cores:
            raise KcmError(Code.UNKNOWN_ASK)  # no Core that may act: retired or held, for example
        return cannot

    async def _exchange(self, without: Collection[str], work: _Work, out: memoryview) -> Lease:
        """Seal, send once, and open the reply into ``out``. The returned lease may have ended."""
        session = await self._sessions.choose(without)
        if work.cores and session.peer not in work.cores:  # it may act only since a moment
            error = KcmError(Code.UNAVAILABLE, f"no application asked {session.peer}")
            raise Elsewhere(session.peer, error, away=True, sent=False)
        sent = self._clock.elapsed()
        draft = CoreRequest(
            v=1,
            caller=session.keys.info.caller,
            session_id=session.keys.info.session_id,
            counter=session.begin(),
            deadline_ms=self._clock.unix_ms() + int(self._timeout_s * 1000),
            purpose=work.purpose,
            l3_version=work.l3_version,
            count=work.count,
            sealed=b"",
        )
        try:
            return await self._send(session, draft, work, sent, out)
        except Purged:
            raise KcmError(Code.UNAVAILABLE, "the session was closed meanwhile") from None
        finally:
            session.end()

    async def _send(
        self, session: PeerSession, draft: CoreRequest, work: _Work, sent: float, out: memoryview
    ) -> Lease:
        clear = draft.clear(self._region, work.operation, work.tenant, work.service)
        nonce = self._random.public(limits.NONCE_SIZE)
        plain = work.plain(session.peer)
        sealed = session.keys.seal_request(draft.counter, clear, plain, nonce)
        body = encode(draft.model_copy(update={"sealed": sealed}))
        subject = data_subjects.core(
            self._region, session.peer, work.operation, work.tenant, work.service
        )
        try:
            answer = await self._ask(subject, body, self._timeout_s)
        except KcmError as error:
            raise self._replies.unreached(session, error, sent) from None
        digest = session.keys.request_digest(draft.counter, clear)
        self._replies.read(session, answer, digest, lambda size: out if size == len(out) else None)
        lease_ms, version = REPLY_HEAD.unpack_from(out)
        return Lease(version, sent, sent + lease_ms / 1000)

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.public(1)[0] / 255


def caller_of(me: InstanceContext, held: HeldKeys) -> Caller:
    """Return a Gateway as the caller of Cores; it calls no Core whose key is in ``held``."""

    def listen(changed: Callable[[frozenset[str]], None]) -> None:
        me.rosters.listen(changed)
        held.listen(changed)

    return Caller(
        name=me.name,
        region=me.region,
        incarnation=me.incarnation,
        sign=me.identity.sign_raw,
        verifier=lambda: me.verifier,
        listen=listen,
        peers=Role.CORE,
        subject_of=data_subjects.core_session,
        held=held.has,
    )


def _reason(refused: Collection[_Refusal]) -> KcmError:
    """Return what the caller gets: the refusal of a Core that was reached, if there is one."""
    chosen = next((one for one in refused if not one.away), next(iter(refused)))
    strange = chosen.code is Code.UNKNOWN_SESSION
    return KcmError(chosen.code, _STRANGE if strange else chosen.detail)


def _refusal(lease: Lease, now: float) -> KcmError:
    """Return why the second reply is not usable either."""
    if now >= lease.until and lease.until - lease.sent >= SHORTEST_S:
        return KcmError(Code.DEADLINE_EXCEEDED, "the reply came after its lease had ended")
    return too_short()
