"""Wrap and unwrap for Gateways: requests and replies in columns, sealed.

Order of work: check that the request is well formed and in time, that its caller may make it, that
the tenant is not killed and that its key is open. Then, without a wait in between, open the sealed
request, perform the cipher calls, seal the reply, and compare the generation once more. A request
that a purge overtakes gets a refusal and nothing else.

A customer's root key is called only for a request that opens: a ticket is sent in clear, so an
attacker can send a copy of it with other content. A copy of a request is not served, and is not
recorded in its caller's name: a caller that repeats a request makes another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Purged, ScratchPool
from kcm_killswitch.model.admission import Admission
from kcm_runtime.audit.port import AuditRoom
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_runtime.requests import SeenRequests, check_deadline
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.vault import REPLY_HEAD, STATUS_OK, STATUS_TAMPERED, CoreReply, CoreRequest
from kcm_sealing.session import Session, sealed_size
from kcm_sealing.xaes import count_prefixes
from kcm_trust.verify import may_ask

from kcm_core.api.sessions import Sessions
from kcm_core.keys.keyring import Keyring, ServiceKey
from kcm_core.keys.loader import KeyLoader
from kcm_core.keys.vault import Vault

_HEAD: Final = REPLY_HEAD.size

_UNKNOWN: Final = frozenset({Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE})
"""Refusals for which the store's leader may have newer data than this Core, which only follows
it."""

ASKED_MAX: Final = 16_384
"""Requests of one caller that are remembered until their deadlines, which a Gateway sets to a few
seconds: at least 3,000 a second. Each takes about 150 bytes."""

Fetch = Callable[[str, str], Awaitable[None]]
"""Reads the entries of a tenant and a service from the registry's leader."""


@dataclass(slots=True)
class _Call:
    """One request: its content, its bytes, its associated data, and the caller's session."""

    asked: subjects.DataSubject
    request: CoreRequest
    body: bytes
    clear: bytes
    session: Session


class WrapApi:
    """Serves ``wrap`` and ``unwrap``."""

    def __init__(
        self,
        host: Host,
        admission: Admission,
        *,
        loader: KeyLoader,
        vault: Vault,
        sessions: Sessions,
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
        self._sessions: Final = sessions
        self._lease_ms: Final = lease_ms
        self._fetch: Final = fetch
        self._room: Final = room
        self._scratch: Final = ScratchPool()
        self._asked: Final[SeenRequests[bool]] = SeenRequests(ASKED_MAX)
        """What was served or refused, by caller and id: only requests that their callers sealed."""
        self._unbelieved: Final = RejectionLog("a caller's ticket or seal", host.emit)
        self._outside: Final = RejectionLog("outside of what is granted", host.emit)

    def close(self) -> None:
        """Record the refusals that are only counted so far."""
        self._unbelieved.close()
        self._outside.close()

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request; raises ``KcmError``."""
        asked = subjects.read_data(subject)
        if asked.operation not in ("wrap", "unwrap"):
            raise KcmError(Code.MALFORMED, "a Core serves wrap and unwrap")
        request = decode(CoreRequest, body)
        now = self._clock.unix_ms()
        check_deadline(request.deadline_ms, now)
        if self._is_copy(request):
            self._unbelieved.record(_copy())
            raise _copy()
        call = self._granted(asked, request, body)
        if not self._room.has_room:
            raise KcmError(Code.UNAVAILABLE, self._room.refusal)
        if self._asked.full(request.caller, now):
            raise KcmError(Code.BUSY, "the caller asks more than can be remembered; it may soon")
        try:
            return await self._serve_known(call)
        except Purged:
            refusal = self._admission.refusal(asked.tenant)
            self._refused(call, refusal)
            raise refusal from None
        except KcmError as error:
            self._refused(call, error)
            raise

    def _refused(self, call: _Call, error: KcmError) -> None:
        """Record a refusal once, and in the caller's name only if the caller sealed the request."""
        if self._is_copy(call.request):
            self._unbelieved.record(_copy())
        elif self._is_sealed(call):
            self._tell(call, error.code, call.request.count)
        else:
            self._unbelieved.record(error)

    def _is_copy(self, request: CoreRequest) -> bool:
        """Whether a request with this id, which the seal covers, was served or refused before."""
        return self._asked.get(request.caller, request.request_id) is not None

    def _remember(self, request: CoreRequest) -> None:
        now = self._clock.unix_ms()
        self._asked.add(request.caller, request.request_id, request.deadline_ms, now, made=True)

    def _is_sealed(self, call: _Call) -> bool:
        """Whether the caller made exactly this request: the ticket alone may be a copy."""
        try:
            self._renew(call)
            if call.asked.operation == "unwrap":
                _open(call, _blobs(call.request))
            else:
                self._check_seal(call)
        except (KcmError, Purged):
            return False
        return True

    def _granted(self, asked: subjects.DataSubject, request: CoreRequest, body: bytes) -> _Call:
        """Find the caller's session; refuse an unknown caller, or one without this grant.

        A refusal is counted, and in the caller's name only if the caller sealed the request, so
        that a forged request hides nothing of what a Gateway did.
        """
        try:
            session, caller = self._sessions.session(request, self._clock.unix_ms())
        except KcmError as error:
            if error.code is Code.FORBIDDEN:
                self._unbelieved.record(error)
            raise
        clear = request.clear(self._me.region, asked.operation, asked.tenant, asked.service)
        call = _Call(asked, request, body, clear, session)
        if caller.role is Role.GATEWAY and may_ask(caller, asked.tenant, asked.service):
            return call
        refusal = KcmError(Code.FORBIDDEN, "the caller may not ask for that tenant and service")
        if not self._is_sealed(call):
            self._unbelieved.record(refusal)
            raise refusal
        self._remember(request)
        self._outside.record(refusal, actor=request.caller, tenant=asked.tenant)
        raise refusal

    def _renew(self, call: _Call) -> None:
        """Open the session again, if it closed or expired while the call waited.

        It closes if another session displaces it or if the caller's roster entry changes; the
        caller's grant is therefore checked again.
        """
        now = self._clock.unix_ms()
        if not call.session.closed and call.session.info.live(now):
            return
        call.session, caller = self._sessions.session(call.request, now)
        if not may_ask(caller, call.asked.tenant, call.asked.service):
            raise KcmError(Code.FORBIDDEN, "the caller may not ask for that tenant and service")

    async def _serve_known(self, call: _Call) -> bytes:
        """Serve; on a refusal, check once for an entry that another Core has just accepted."""
        try:
            return await self._serve(call)
        except KcmError as error:
            if error.code not in _UNKNOWN:
                raise
        await self._fetch(call.asked.tenant, call.asked.service)
        return await self._serve(call)

    async def _serve(self, call: _Call) -> bytes:
        asked, request = call.asked, call.request
        if not self._sessions.registered(request):
            raise KcmError(Code.UNAVAILABLE, "this Core has not read the caller's lease entry yet")
        permit = self._admission.admit(asked.tenant, self._clock.elapsed())
        _check_version(asked.operation, request.l3_version)
        if not self._loader.is_open(asked.tenant, asked.service, request.l3_version):
            self._check_seal(call)
        key = await self._loader.service_key(
            asked.tenant, asked.service, request.l3_version, permit
        )
        # From here on, nothing waits.
        if self._is_copy(request):
            raise _copy()
        left = self._admission.recheck(permit, self._clock.elapsed())
        ring = self._vault.ring(asked.tenant)
        if ring is None:
            raise KcmError(Code.TENANT_UNAVAILABLE)
        self._renew(call)
        work = self._wrap if asked.operation == "wrap" else self._unwrap
        lease_ms = min(self._lease_ms, int(left * 1000))
        sealed, failed = work(call, ring, key, lease_ms)
        self._admission.recheck(permit, self._clock.elapsed())
        self._tell(call, Code.OK, failed)
        return encode(CoreReply(v=1, callee=self._me.name, sealed=sealed))

    def _check_seal(self, call: _Call) -> None:
        self._renew(call)
        if call.asked.operation == "unwrap":
            _open_blobs(call)
            return
        with self._scratch.borrow(call.request.count * limits.KEY_SIZE) as keys:
            _open(call, keys)

    def _wrap(
        self, call: _Call, ring: Keyring, key: ServiceKey, lease_ms: int
    ) -> tuple[bytes, int]:
        count = call.request.count
        reply = memoryview(bytearray(_HEAD + count * limits.WRAPPED_SIZE))
        with self._scratch.borrow_keys(count) as keys:
            _open(call, keys.view)
            self._vault.wrap(ring, key, call.request.purpose, keys, reply[_HEAD:])
            return self._seal(call, key, reply, lease_ms), 0

    def _unwrap(
        self, call: _Call, ring: Keyring, key: ServiceKey, lease_ms: int
    ) -> tuple[bytes, int]:
        count = call.request.count
        keys_at = _HEAD + count
        blobs = _open_blobs(call)
        with (
            self._scratch.borrow_keys(count) as keys,
            self._scratch.borrow(keys_at + len(keys.view)) as reply,
        ):
            bad = self._vault.unwrap(ring, key, call.request.purpose, blobs, keys)
            reply[_HEAD:keys_at] = bytes((STATUS_OK,)) * count
            for position in bad:
                reply[_HEAD + position] = STATUS_TAMPERED
            reply[keys_at:] = keys.view
            return self._seal(call, key, reply, lease_ms), len(bad)

    def _seal(self, call: _Call, key: ServiceKey, reply: memoryview, lease_ms: int) -> bytes:
        REPLY_HEAD.pack_into(reply, 0, lease_ms, key.version)
        nonce = self._random.public(limits.NONCE_SIZE)
        digest = sha256(call.body).digest()
        return call.session.seal_reply(digest, self._me.name, reply, nonce)

    def _tell(self, call: _Call, code: Code, failed: int) -> None:
        asked, request = call.asked, call.request
        self._remember(request)
        self._emit(
            EventType.KEYS_WRAP if asked.operation == "wrap" else EventType.KEYS_UNWRAP,
            actor=request.caller,
            tenant=asked.tenant,
            service=asked.service,
            code=code,
            count=request.count,
            failed=failed,
        )


def _copy() -> KcmError:
    return KcmError(Code.FORBIDDEN, "the request was sent before; make a new one")


def _open(call: _Call, out: memoryview) -> None:
    request = call.request
    if len(request.sealed) != sealed_size(len(out)):
        raise KcmError(Code.MALFORMED, "the columns are not as long as their count says")
    try:
        call.session.open_request(request.request_id, call.clear, request.sealed, out)
    except InvalidTag:
        raise KcmError(Code.FORBIDDEN, "the request was not sealed for this subject") from None


def _blobs(request: CoreRequest) -> memoryview:
    return memoryview(bytearray(request.count * limits.WRAPPED_SIZE))


def _open_blobs(call: _Call) -> memoryview:
    """The wrapped keys of an unwrap, not secret; ``malformed`` if they have too many prefixes."""
    request = call.request
    blobs = _blobs(request)
    _open(call, blobs)
    if request.count > limits.PREFIXES_MAX and count_prefixes(blobs) > limits.PREFIXES_MAX:
        raise KcmError(Code.MALFORMED, "the keys have too many different nonce prefixes")
    return blobs


def _check_version(operation: str, version: int) -> None:
    """Refuse a wrap under an old version, and an unwrap under "the current version" (0)."""
    if operation == "wrap" and version:
        raise KcmError(Code.MALFORMED, "keys are wrapped under the current version")
    if operation == "unwrap" and not version:
        raise KcmError(Code.KEY_DESTROYED, "versions of a service key count from 1")
