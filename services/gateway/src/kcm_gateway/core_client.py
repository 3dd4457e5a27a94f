"""Asking the region's Core to wrap and unwrap data keys, over the sealed channel.

The session's ticket travels with every request, so any Core of the region can answer. What comes
back may be used until its lease ends, counted from the sending of the very request that it answers:
a reply that was held up anywhere brings nothing that is still valid.

What passes is asked again before anybody hears of it, each reason once: a session that the Core
does not know, and a lease that has ended, or is about to. While the broker or every Core is away,
as when a connection is lost and made anew, it is asked again for a moment, in growing intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena, ScratchPool
from kcm_keymem.random import KeyRandomness
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
"""Subject, body, timeout in seconds: the answer's body, or ``KcmError``."""

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""

AWAY_S: Final = 1.0
"""Seconds for which a broker, or Cores, that are away are asked again, counted from the first
request: a connection is usually back by then, and whoever waits takes up a Gateway's room."""

_AWAY_FIRST_S: Final = 0.02
"""Seconds of the first wait for them, half of it at random; each next one is twice as long."""

_AWAY_TIMES_MAX: Final = 6
"""Times that they are asked again: the waits of these fill ``AWAY_S``."""

_HEAD: Final = REPLY_HEAD.size
_ALL_OK: Final = bytes((STATUS_OK,)) * limits.KEYS_MAX
_RENEW_S: Final = LIFETIME_MAX_MS / 2000
"""Seconds of age at which a session is replaced: what is left is many times what a request takes,
so that no ticket ends while its request is under way."""

_CLOCK_STEP_MS: Final = 1_000
"""Milliseconds by which the wall clock may part from the elapsed clock in a session's life. A clock
that was set is what a Core sees in the ticket, so the session is replaced."""

_STRANGE: Final = (
    "a Core refuses a session that was made for this very request: compare the clocks and the"
    " rosters of both"
)


class _Away(KcmError):
    """The request reached no Core."""


class CoreClient:
    """Wraps and unwraps through whichever Core answers."""

    def __init__(
        self,
        ask: Ask,
        membership: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
        timeout_s: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._ask: Final = ask
        self._me: Final = membership
        self._clock: Final = clock
        self._random: Final = randomness
        self._timeout_s: Final = timeout_s
        self._sleep: Final = sleep
        self._scratch: Final = ScratchPool()
        self._session: Session | None = None
        self._ticket: Ticket | None = None
        self._opened = 0.0

    async def wrap(
        self, tenant: str, service: str, purpose: Purpose, keys: memoryview
    ) -> tuple[Lease, bytes]:
        """Wrap n keys (32 bytes each) under the current L3; returns n blobs of 72 bytes."""
        count = len(keys) // limits.KEY_SIZE
        size = _HEAD + count * limits.WRAPPED_SIZE
        out = memoryview(bytearray(size))  # wrapped keys are no secret
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
        """Wipe the session's keys."""
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
        """Ask, and again where that helps; the lease is one with which work may begin."""
        strange = short = False
        away, since = 0, self._clock.elapsed()
        while True:
            try:
                lease = await self._exchange(
                    operation, tenant, service, purpose, l3_version, count, plain, out
                )
            except _Away as error:
                wait = _AWAY_FIRST_S * 2**away * (1 + self._random.public(1)[0] / 255) / 2
                most = min(AWAY_S, self._timeout_s)
                if away >= _AWAY_TIMES_MAX or self._clock.elapsed() + wait - since >= most:
                    raise KcmError(error.code, error.detail) from None
                away += 1
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
                wipe(out)  # before anything is waited for: a purge does not reach these keys
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
        """Seal, ask once, and open the answer into ``out``. The lease may have ended."""
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

    def _open_reply(
        self, session: Session, reply: CoreReply, body: bytes, sent: float, out: memoryview
    ) -> Lease:
        if len(reply.sealed) != sealed_size(len(out)):
            raise KcmError(Code.UNAVAILABLE, "the answer is not as long as it has to be")
        try:
            session.open_reply(sha256(body).digest(), reply.callee, reply.sealed, out)
        except InvalidTag:
            raise KcmError(Code.UNAVAILABLE, "the answer is not the Core's") from None
        lease_ms, version = REPLY_HEAD.unpack_from(out)
        return Lease(version, sent, sent + lease_ms / 1000)

    def _open_session(self) -> tuple[Session, Ticket]:
        """The session and its ticket; a new one when it is old, or the wall clock was set."""
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
            raise KcmError(Code.UNAVAILABLE, "the roster has no such region any more")
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
        # A request that is still under way keeps the old session alive until it is answered.
        self._session, self._ticket = session, ticket
        self._opened = self._clock.elapsed()
        return session, ticket


def _refusal(lease: Lease, now: float) -> KcmError:
    """Why the second answer is of no use either."""
    if now >= lease.until and lease.until - lease.sent >= SHORTEST_S:
        return KcmError(Code.DEADLINE_EXCEEDED, "the answer came after its lease had ended")
    return too_short()
