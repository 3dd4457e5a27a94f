"""The client of the region's Cores: wrap and unwrap of data keys, over the sealed channel.

The session's ticket travels with every request, so that every Core of the region can answer. A
reply may be used until its answer lease ends, which is counted from the sending of the request that
it answers: a delayed reply contains nothing that is still valid.

Transient failures are retried before the caller sees them, each reason once: a session that the
Core does not know, and a lease that has ended or is about to end. While the broker or every Core is
away, for example during a reconnection, the request is repeated for a moment with back-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena, ScratchPool
from kcm_keymem.random import KeyRandomness
from kcm_runtime.backoff import Backoff
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.vault import REPLY_HEAD, STATUS_OK, CoreReply, CoreRequest, Purpose, Ticket
from kcm_sealing.hpke import HpkePublic
from kcm_sealing.memory import wipe
from kcm_sealing.session import (
    LIFETIME_MAX_MS,
    Session,
    TicketInfo,
    open_session_as_caller,
    sealed_size,
)

from kcm_gateway.keys.lease import SHORTEST_S, Lease, too_short

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""Takes subject, body and timeout in seconds; returns the reply's body or raises ``KcmError``."""

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
_ALL_OK: Final = bytes((STATUS_OK,)) * limits.KEYS_MAX
_RENEW_S: Final = LIFETIME_MAX_MS / 2000
"""Seconds of age at which a session is replaced: the rest of its lifetime is many times as long as
a request, so that no ticket ends before its request does."""

_CLOCK_STEP_MS: Final = 1_000
"""Milliseconds by which the wall clock and the elapsed clock may diverge in a session. A Core
compares the ticket with a clock, so after a step of the wall clock the session is replaced."""

_STRANGE: Final = (
    "a Core rejects a session that was made for this very request: compare the clocks and the"
    " rosters of both"
)


class _Away(KcmError):
    """The request reached no Core."""


class CoreClient:
    """Wraps and unwraps through any Core that answers."""

    def __init__(
        self,
        ask: Ask,
        me: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
        timeout_s: float,
        sleep: Sleep = asyncio.sleep,
        scratch: ScratchPool | None = None,
    ) -> None:
        """``scratch`` lends the locked memory in which replies are opened."""
        self._ask: Final = ask
        self._me: Final = me
        self._clock: Final = clock
        self._random: Final = randomness
        self._timeout_s: Final = timeout_s
        self._sleep: Final = sleep
        self._scratch: Final = scratch if scratch is not None else ScratchPool()
        self._session: Session | None = None
        self._ticket: Ticket | None = None
        self._opened = 0.0
        self._closed = False

    async def wrap(
        self, tenant: str, service: str, purpose: Purpose, keys: memoryview
    ) -> tuple[Lease, bytes]:
        """Wrap n keys (32 bytes each) under the current L3; returns n blobs of 72 bytes."""
        count = len(keys) // limits.KEY_SIZE
        size = _HEAD + count * limits.WRAPPED_SIZE
        out = memoryview(bytearray(size))  # wrapped keys are not secret
        lease = await self._call("wrap", tenant, service, purpose, 0, count, keys, out)
        return lease, out[_HEAD:].tobytes()

    async def unwrap(
        self,
        tenant: str,
        service: str,
        purpose: Purpose,
        l3_version: int,
        blobs: bytes,
        out: memoryview,
    ) -> tuple[Lease, list[int]]:
        """Unwrap n blobs (72 bytes each) into ``out`` (n times 32 bytes).

        Returns the positions that do not authenticate.
        """
        count = len(blobs) // limits.WRAPPED_SIZE
        keys_at = _HEAD + count
        with self._scratch.borrow(keys_at + count * limits.KEY_SIZE) as reply:
            lease = await self._call(
                "unwrap", tenant, service, purpose, l3_version, count, memoryview(blobs), reply
            )
            out[:] = reply[keys_at:]
            status = reply[_HEAD:keys_at].tobytes()
            if status == _ALL_OK[:count]:
                return lease, []
            return lease, [i for i, one in enumerate(status) if one != STATUS_OK]

    def close(self) -> None:
        """Wipe the session's keys, and make no request any more."""
        self._closed = True
        if self._session is not None:
            self._session.close()
            self._session = None

    async def _call(
        self,
        operation: Literal["wrap", "unwrap"],
        tenant: str,
        service: str,
        purpose: Purpose,
        l3_version: int,
        count: int,
        plain: memoryview,
        out: memoryview,
    ) -> Lease:
        """Send a request, with retries that can help; returns a lease with which work may begin."""
        strange = short = False
        away = Backoff(_AWAY_FIRST_S, AWAY_S, jitter=(0.5, 1.0), uniform=self._uniform)
        times, since = 0, self._clock.elapsed()
        while True:
            try:
                lease = await self._exchange(
                    operation, tenant, service, purpose, l3_version, count, plain, out
                )
            except _Away as error:
                wait = away.next_s()
                most = min(AWAY_S, self._timeout_s)
                if times >= _AWAY_TIMES_MAX or self._clock.elapsed() + wait - since >= most:
                    raise KcmError(error.code, error.detail) from None
                times += 1
                await self._sleep(wait)
            except KcmError as error:
                if error.code is not Code.UNKNOWN_SESSION:
                    raise
                if strange:
                    raise KcmError(error.code, _STRANGE) from None
                strange = True
            else:
                now = self._clock.elapsed()
                if not lease.too_short(now):
                    return lease
                wipe(out)  # before any await: a purge does not reach these keys
                if short:
                    raise _refusal(lease, now)
                short = True

    async def _exchange(
        self,
        operation: Literal["wrap", "unwrap"],
        tenant: str,
        service: str,
        purpose: Purpose,
        l3_version: int,
        count: int,
        plain: memoryview,
        out: memoryview,
    ) -> Lease:
        """Seal, send once, and open the reply into ``out``. The returned lease may have ended."""
        if self._closed:
            raise KcmError(Code.UNAVAILABLE, "the client of the Cores is closed")
        session, ticket = self._open_session()
        request_id = self._random.public(limits.ID_SIZE)
        sent = self._clock.elapsed()
        draft = CoreRequest(
            v=1,
            caller=self._me.name,
            incarnation=self._me.incarnation,
            ticket=ticket,
            request_id=request_id,
            deadline_ms=self._clock.unix_ms() + int(self._timeout_s * 1000),
            purpose=purpose,
            l3_version=l3_version,
            count=count,
            sealed=b"",
        )
        clear = draft.clear(self._me.region, operation, tenant, service)
        nonce = self._random.public(limits.NONCE_SIZE)
        sealed = session.seal_request(request_id, clear, plain, nonce)
        body = encode(draft.model_copy(update={"sealed": sealed}))
        subject = subjects.core(self._me.region, operation, tenant, service)
        try:
            answer = await self._ask(subject, body, self._timeout_s)
        except KcmError as error:
            if error.code is Code.UNAVAILABLE:
                raise _Away(error.code, error.detail) from None
            raise
        try:
            reply = decode_reply(CoreReply, answer)
        except KcmError as error:
            if error.code is Code.UNKNOWN_SESSION and self._session is session:
                self._session = None
            raise
        return self._open_reply(session, reply, body, sent, out)

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.public(1)[0] / 255

    def _open_reply(
        self, session: Session, reply: CoreReply, body: bytes, sent: float, out: memoryview
    ) -> Lease:
        if len(reply.sealed) != sealed_size(len(out)):
            raise KcmError(
                Code.UNAVAILABLE,
                f"the reply of {reply.callee} has {len(reply.sealed)} bytes, not"
                f" {sealed_size(len(out))}",
            )
        try:
            session.open_reply(sha256(body).digest(), reply.callee, reply.sealed, out)
        except InvalidTag:
            raise KcmError(
                Code.UNAVAILABLE, f"the reply of {reply.callee} does not authenticate"
            ) from None
        lease_ms, version = REPLY_HEAD.unpack_from(out)
        return Lease(version, sent, sent + lease_ms / 1000)

    def _open_session(self) -> tuple[Session, Ticket]:
        """Return the session and its ticket; replace an old one, or after a clock step."""
        now = self._clock.unix_ms()
        age_s = self._clock.elapsed() - self._opened
        if (
            self._session is not None
            and self._ticket is not None
            and 0 <= age_s < _RENEW_S
            and abs(now - self._ticket.issued_ms - age_s * 1000) < _CLOCK_STEP_MS
        ):
            return self._session, self._ticket
        regions = self._me.verifier.roster.regions
        region = next((one for one in regions if one.region == self._me.region), None)
        if region is None:
            raise KcmError(Code.UNAVAILABLE, f"the roster no longer has region {self._me.region}")
        info = TicketInfo(
            region=self._me.region,
            hpke_key_id=region.hpke_key_id,
            caller=self._me.name,
            session_id=self._random.public(limits.ID_SIZE),
            issued_ms=now,
            expiry_ms=now + LIFETIME_MAX_MS,
        )
        public = HpkePublic.from_bytes(region.hpke_public)
        session, ciphertext, signature = open_session_as_caller(
            info, public, self._me.identity.sign_raw, Arena(), self._random.fill
        )
        ticket = Ticket(
            session_id=info.session_id,
            hpke_key_id=info.hpke_key_id,
            issued_ms=info.issued_ms,
            expiry_ms=info.expiry_ms,
            ciphertext=ciphertext,
            signature=signature,
        )
        # A request in progress keeps the old session alive until it is answered.
        self._session, self._ticket = session, ticket
        self._opened = self._clock.elapsed()
        return session, ticket


def _refusal(lease: Lease, now: float) -> KcmError:
    """Return why the second reply is not usable either."""
    if now >= lease.until and lease.until - lease.sent >= SHORTEST_S:
        return KcmError(Code.DEADLINE_EXCEEDED, "the reply came after its lease had ended")
    return too_short()
