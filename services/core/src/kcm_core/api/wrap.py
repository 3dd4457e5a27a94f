"""Wrap and unwrap for Gateways: requests and replies in columns, sealed.

Order of work: check that the request is well formed and in time, that its caller may make it, that
the tenant is not killed and that its key is open. Then, without a wait in between, open the sealed
request, perform the cipher calls, seal the reply, and compare the generation once more. A request
that a purge overtakes gets a refusal and nothing else.

A customer's root key is called only for a request that opens: session and counter are sent in
clear, so an attacker can send them with other content. The counter is taken as soon as the request
is opened, before any wait: a copy is answered ``replayed``, without any work, and is not recorded
in its caller's name. A caller that repeats a request takes the next counter.

A refusal is sealed like an answer as soon as there is a session: its code counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from kcm_keymem.arena import Purged, ScratchPool
from kcm_killswitch.model.admission import Admission
from kcm_runtime.audit.port import AuditRoom
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_runtime.nats.work_slots import contended, work
from kcm_runtime.requests import check_deadline
from kcm_schemas import data_subjects, limits
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.roster import Role
from kcm_schemas.session import SealedRefusal, SealedReply
from kcm_schemas.vault import REPLY_HEAD, STATUS_OK, STATUS_TAMPERED, CoreRequest
from kcm_sealing.memory import wipe
from kcm_trust.verify import may_ask

from kcm_core.api.asks import Asks, Outcome, Unwrap, outcomes, target_of
from kcm_core.api.core_call import Call, check_version, copied, open_blobs, open_keys
from kcm_core.api.gateway_sessions import GatewaySessions
from kcm_core.keys.keyring import Keyring, ServiceKey
from kcm_core.keys.loader import KeyLoader
from kcm_core.keys.vault import Vault

_HEAD: Final = REPLY_HEAD.size

EVENTS: Final = {"wrap": EventType.KEYS_WRAP, "unwrap": EventType.KEYS_UNWRAP}
"""The event type of each operation."""

_UNKNOWN: Final = frozenset({Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE})
"""Refusals for which the store's leader may have newer data than this Core, which only follows
it."""

Fetch = Callable[[str, str], Awaitable[None]]
"""Reads the entries of a tenant and a service from the registry's leader."""


@dataclass(frozen=True, slots=True)
class Callers:
    """Who calls: Gateways, and through them the applications that ask."""

    gateways: GatewaySessions
    asks: Asks


class WrapApi:
    """Serves ``wrap`` and ``unwrap``."""

    def __init__(
        self,
        host: Host,
        admission: Admission,
        *,
        loader: KeyLoader,
        vault: Vault,
        callers: Callers,
        lease_ms: int,
        fetch: Fetch,
        room: AuditRoom,
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._emit: Final = host.emit
        self._admission: Final = admission
        self._loader: Final = loader
        self._vault: Final = vault
        self._sessions: Final = callers.gateways
        self._asks: Final = callers.asks
        self._lease_ms: Final = lease_ms
        self._fetch: Final = fetch
        self._room: Final = room
        self._scratch: Final = ScratchPool()
        self._unbelieved: Final = RejectionLog("a caller's seal", host.emit)
        self._outside: Final = RejectionLog("outside of what is granted", host.emit)

    def close(self) -> None:
        """Record the refusals that are only counted so far."""
        self._unbelieved.close()
        self._outside.close()

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request; raises ``KcmError`` where no seal is possible."""
        asked = data_subjects.read_core(subject)
        if asked.operation not in EVENTS:
            raise KcmError(Code.MALFORMED, "a Core serves wrap and unwrap")
        request = decode(CoreRequest, body)
        check_deadline(request.deadline_ms, self._clock.unix_ms())
        try:
            session, caller = self._sessions.session(request.caller, request.session_id)
        except KcmError as error:
            if error.code is Code.FORBIDDEN:
                self._unbelieved.record(error)
            raise
        if not session.window.fresh(request.counter):
            self._unbelieved.record(copied())
            raise copied()
        if not self._room.has_room:
            # Not recorded either: the rest of the buffer is reserved for purges.
            raise KcmError(Code.UNAVAILABLE, self._room.refusal)
        clear = request.clear(self._me.region, asked.operation, asked.tenant, asked.service)
        call = Call(asked, request, clear, session, caller)
        try:
            self._check_granted(call)
            await self._turn(call)
            return await self._serve_known(call)
        except Purged:
            refusal = self._admission.refusal(asked.tenant)
        except KcmError as error:
            refusal = error
        except Exception:
            if call.taken:
                self._tell(call, Code.INTERNAL, call.request.count)
            raise
        return self._refused(call, refusal)

    async def _turn(self, call: Call) -> None:
        """Wait for a turn, by the caller and the tenant; raises ``busy``.

        A request waits in its caller's name only if the caller sealed it.
        """
        if contended():
            self._check_seal(call)
        request = call.request
        key = (request.caller, call.asked.tenant)
        await work(key, records=request.count, ends_ms=request.deadline_ms)

    def _check_granted(self, call: Call) -> None:
        """Refuse what is outside of the caller's grants, and of those of its application."""
        caller, asked = call.caller, call.asked
        if caller.role is not Role.GATEWAY or not may_ask(caller, asked.tenant, asked.service):
            raise _Outside("the caller may not ask for that tenant and service")
        try:
            self._asks.check_embedding(caller, asked)
        except KcmError as error:
            if error.code is not Code.FORBIDDEN:
                raise
            raise _Outside(error.detail) from None

    def _refused(self, call: Call, refusal: KcmError) -> bytes:
        """Record a refusal once, and return it sealed; raises for a request that is not sealed.

        Only what the caller sealed is recorded in its name, so that a forged request hides nothing
        of what a Gateway did.
        """
        forged = self._forged(call)
        if forged is not None:
            self._unbelieved.record(forged)
            raise forged
        if isinstance(refusal, _Outside):
            self._outside.record(refusal, actor=call.request.caller, tenant=call.asked.tenant)
        else:
            self._tell(call, refusal.code, call.request.count)
        return self._sealed_refusal(call, refusal)

    def _forged(self, call: Call) -> KcmError | None:
        """Return why the caller did not make exactly this request, or ``None`` if it did."""
        if call.taken:
            return None
        try:
            self._check_seal(call)
        except Purged:
            return KcmError(Code.UNKNOWN_SESSION)
        except KcmError as error:
            return None if call.taken else error
        return None

    def _sealed_refusal(self, call: Call, refusal: KcmError) -> bytes:
        """Seal a refusal; raises it as it is if the session was closed meanwhile."""
        keys = call.session.keys
        if keys.closed:
            raise refusal
        plain = encode(Failure(v=1, error=refusal.code, detail=refusal.detail))
        digest, nonce = call.digest, self._random.public(limits.NONCE_SIZE)
        sealed = keys.seal_reply(digest, memoryview(plain), nonce, "refused")
        return encode(SealedRefusal(v=1, refused=sealed))

    def _check_session(self, call: Call) -> None:
        """Refuse a call whose session has ended meanwhile.

        It is closed if another session displaces it or if the caller's roster entry changes. The
        caller opens another one, and its grants are checked again.
        """
        if not self._sessions.live(call.session):
            raise KcmError(Code.UNKNOWN_SESSION)

    async def _serve_known(self, call: Call) -> bytes:
        """Serve; on a refusal, check once for an entry that another Core has just accepted."""
        try:
            return await self._serve(call)
        except KcmError as error:
            if error.code not in _UNKNOWN:
                raise
        self._check_seal(call)  # a forged request makes no other store work
        await self._fetch(call.asked.tenant, call.asked.service)
        return await self._serve(call)

    async def _serve(self, call: Call) -> bytes:
        asked, request = call.asked, call.request
        if not self._sessions.registered(call.session):
            raise KcmError(Code.UNAVAILABLE, "this Core has not read the caller's lease entry yet")
        permit = self._admission.admit(asked.tenant, self._clock.elapsed())
        check_version(asked.operation, request.l3_version)
        if not self._loader.is_open(asked.tenant, asked.service, request.l3_version):
            self._check_seal(call)
        key = await self._loader.service_key(
            asked.tenant, asked.service, request.l3_version, permit
        )
        # From here on, nothing waits.
        if not self._room.has_room:  # others may have filled it meanwhile
            raise KcmError(Code.UNAVAILABLE, self._room.refusal)
        left = self._admission.recheck(permit, self._clock.elapsed())
        ring = self._vault.ring(asked.tenant)
        if ring is None:
            raise KcmError(Code.TENANT_UNAVAILABLE)
        self._check_session(call)
        self._check_granted(call)
        perform = self._wrap if asked.operation == "wrap" else self._unwrap
        lease_ms = min(self._lease_ms, int(left * 1000))
        sealed = perform(call, ring, key, lease_ms)
        self._admission.recheck(permit, self._clock.elapsed())
        self._sessions.used(call.session)
        self._tell(call, Code.OK, 0)
        return encode(SealedReply(v=1, sealed=sealed))

    def _check_seal(self, call: Call) -> None:
        self._check_session(call)
        if call.asked.operation == "unwrap":
            open_blobs(call)
            return
        with self._scratch.borrow(call.request.count * limits.KEY_SIZE) as keys:
            open_keys(call, keys)

    def _wrap(self, call: Call, ring: Keyring, key: ServiceKey, lease_ms: int) -> bytes:
        count = call.request.count
        reply = memoryview(bytearray(_HEAD + count * limits.WRAPPED_SIZE))
        with self._scratch.borrow_keys(count) as keys:
            open_keys(call, keys.view)
            self._vault.wrap(ring, key, call.request.purpose, keys, reply[_HEAD:])
            return self._seal(call, key, reply, lease_ms)

    def _unwrap(self, call: Call, ring: Keyring, key: ServiceKey, lease_ms: int) -> bytes:
        count = call.request.count
        keys_at = _HEAD + count
        blobs, asked = open_blobs(call)
        unwrap = Unwrap(call.caller, call.asked, call.request.l3_version, blobs)
        verdicts = self._asks.judge(unwrap, asked)
        refused = [one for one in verdicts if one.status != STATUS_OK]
        for one in refused:  # these keys are not opened at all
            wipe(blobs[one.start * limits.WRAPPED_SIZE : one.stop * limits.WRAPPED_SIZE])
        with (
            self._scratch.borrow_keys(count) as keys,
            self._scratch.borrow(keys_at + len(keys.view)) as reply,
        ):
            bad = self._vault.unwrap(ring, key, call.request.purpose, blobs, keys)
            reply[_HEAD:keys_at] = bytes((STATUS_OK,)) * count
            for position in bad:
                reply[_HEAD + position] = STATUS_TAMPERED
            for one in refused:
                reply[_HEAD + one.start : _HEAD + one.stop] = bytes((one.status,)) * (
                    one.stop - one.start
                )
            reply[keys_at:] = keys.view
            call.outcomes = outcomes(verdicts, bad)
            return self._seal(call, key, reply, lease_ms)

    def _seal(self, call: Call, key: ServiceKey, reply: memoryview, lease_ms: int) -> bytes:
        REPLY_HEAD.pack_into(reply, 0, lease_ms, key.version)
        digest, nonce = call.digest, self._random.public(limits.NONCE_SIZE)
        return call.session.keys.seal_reply(digest, reply, nonce)

    def _tell(self, call: Call, code: Code, failed: int) -> None:
        """Record a request: for an unwrap that was done, once for each target."""
        whole = [Outcome(target_of(call.caller), code, call.request.count, failed)]
        for one in call.outcomes if code is Code.OK and call.outcomes else whole:
            self._emit(
                EVENTS[call.asked.operation],
                actor=call.request.caller,
                tenant=call.asked.tenant,
                service=call.asked.service,
                target=one.target,
                code=one.code,
                count=one.count,
                failed=one.failed,
            )


class _Outside(KcmError):
    """What a caller asks is not granted to it."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.FORBIDDEN, detail)
