"""Asking the region's Core to wrap and unwrap data keys, over the sealed channel.

The session's ticket travels with every request, so any Core of the region can answer. What comes
back may be used until its lease ends, counted from the sending of the very request that it answers:
a reply that was held up anywhere brings nothing that is still valid.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from kcm_bus.clock import Clock, Randomness
from kcm_bus.membership import Membership
from kcm_crypto.arena import ScratchPool
from kcm_crypto.hpke import HpkePublic
from kcm_crypto.session import (
    LIFETIME_MAX_MS,
    Session,
    TicketInfo,
    open_session_as_caller,
    sealed_size,
)
from kcm_crypto.xaes import NONCE_SIZE
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.vault import REPLY_HEAD, STATUS_OK, CoreReply, CoreRequest, Purpose, Ticket

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""Subject, body, timeout in seconds: the answer's body, or ``KcmError``."""

_HEAD: Final = REPLY_HEAD.size
_ALL_OK: Final = bytes((STATUS_OK,)) * limits.KEYS_MAX
_RENEW_MS: Final = LIFETIME_MAX_MS // 2
"""Age in milliseconds at which a session is replaced, well before its ticket ends."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Which L3 version was used, and until when (on the elapsed clock) the answer may be."""

    l3_version: int
    until: float


class CoreClient:
    """Wraps and unwraps through whichever Core answers."""

    def __init__(
        self,
        ask: Ask,
        membership: Membership,
        clock: Clock,
        randomness: Randomness,
        timeout_s: float,
    ) -> None:
        self._ask: Final = ask
        self._me: Final = membership
        self._clock: Final = clock
        self._random: Final = randomness
        self._timeout_s: Final = timeout_s
        self._scratch: Final = ScratchPool()
        self._session: Session | None = None
        self._ticket: Ticket | None = None

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
        """Seal, ask, and open the answer into ``out``; a lost session is made anew once."""
        for attempt in (1, 2):
            session, ticket = self._open_session()
            request_id = self._random.public(limits.ID_SIZE)
            sent = self._clock.elapsed()
            draft = CoreRequest(
                v=1,
                caller=self._me.name,
                boot=self._me.boot,
                ticket=ticket,
                request_id=request_id,
                deadline_ms=self._clock.unix_ms() + int(self._timeout_s * 1000),
                purpose=purpose,
                l3_version=l3_version,
                count=count,
                sealed=b"",
            )
            clear = draft.clear(self._me.region, operation, tenant, service)
            nonce = self._random.public(NONCE_SIZE)
            sealed = session.seal_request(request_id, clear, plain, nonce)
            body = encode(draft.model_copy(update={"sealed": sealed}))
            subject = subjects.core(self._me.region, operation, tenant, service)
            answer = await self._ask(subject, body, self._timeout_s)
            try:
                reply = decode_reply(CoreReply, answer)
            except KcmError as error:
                if error.code is Code.UNKNOWN_SESSION and attempt == 1:
                    if self._session is session:
                        self._session = None
                    continue
                raise
            return self._open_reply(session, reply, body, sent, out)
        raise KcmError(Code.UNAVAILABLE, "no Core accepts a session")

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
        until = sent + lease_ms / 1000
        if self._clock.elapsed() >= until:
            raise KcmError(Code.DEADLINE_EXCEEDED, "the answer came after its lease had ended")
        return Lease(version, until)

    def _open_session(self) -> tuple[Session, Ticket]:
        now = self._clock.unix_ms()
        if (
            self._session is not None
            and self._ticket is not None
            and abs(now - self._ticket.issued_ms) < _RENEW_MS
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
            info, public, self._me.identity.sign_raw
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
        return session, ticket
