"""Wrap and unwrap: what a Gateway asks, in columns, sealed.

Order of work: is it well formed and in time, who asks and may they, is the tenant alive and its key
open; then, without a wait in between, open the seal, do the cipher calls, seal the reply, and
compare the generation once more. A request that a purge overtakes has no reply but the refusal.

A customer's key is asked only for a request that opens: a ticket travels in clear, so anybody can
send one again with something else behind it. Nor is a copy of a request served, or recorded in its
caller's name: a caller that asks again makes another request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Purged, ScratchPool
from kcm_killswitch.model.admission import Serving
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock, Randomness
from kcm_runtime.instance import InstanceContext
from kcm_runtime.requests import Asked, check_deadline
from kcm_schemas import limits, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.vault import REPLY_HEAD, STATUS_OK, STATUS_TAMPERED, CoreReply, CoreRequest
from kcm_sealing.session import Session, sealed_size
from kcm_sealing.xaes import NONCE_SIZE, count_prefixes
from kcm_trust.verify import may_ask

from kcm_core.api.sessions import Sessions
from kcm_core.keys.keyring import Keyring, ServiceKey
from kcm_core.keys.loader import Opener
from kcm_core.keys.vault import Vault

_HEAD: Final = REPLY_HEAD.size

_UNKNOWN: Final = frozenset({Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE})
"""RejectionLog for which the store's leader may know better than this Core, which only follows
it."""

ASKED_MAX: Final = 16_384
"""Requests of one caller that are remembered until their deadlines, which a Gateway sets to some
seconds: 3,000 a second and more. Each takes some 150 bytes."""

Fetch = Callable[[str, str], Awaitable[None]]
"""Takes the records of a tenant and a service from the registry's leader."""


class Wrapping:
    """Serves ``wrap`` and ``unwrap``."""

    def __init__(
        self,
        *,
        membership: InstanceContext,
        serving: Serving,
        opener: Opener,
        vault: Vault,
        sessions: Sessions,
        emit: Emit,
        clock: Clock,
        randomness: Randomness,
        incarnations: Incarnations,
        lease_ms: int,
        may_record: Callable[[], bool] = lambda: True,
        refusal: Callable[[], str] = lambda: "the audit trail cannot take more",
        fetch: Fetch | None = None,
    ) -> None:
        self._me: Final = membership
        self._serving: Final = serving
        self._opener: Final = opener
        self._vault: Final = vault
        self._sessions: Final = sessions
        self._emit: Final = emit
        self._clock: Final = clock
        self._random: Final = randomness
        self._incarnations: Final = incarnations
        self._lease_ms: Final = lease_ms
        self._fetch: Final = fetch
        self._may_record: Final = may_record
        self._refusal: Final = refusal
        self._scratch: Final = ScratchPool()
        self._asked: Final[Asked[bool]] = Asked(ASKED_MAX)
        """By caller and id, what was served or refused: all of it was sealed by its caller."""
        self._unbelieved: Final = RejectionLog("a caller's ticket or seal", emit)
        self._outside: Final = RejectionLog("outside of what is granted", emit)

    def close(self) -> None:
        """Record what is only counted so far."""
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
        self._admit(asked, request)
        if not self._may_record():
            raise KcmError(Code.UNAVAILABLE, self._refusal())
        if self._asked.full(request.caller, now):
            raise KcmError(Code.BUSY, "the caller asks more than can be remembered; it may soon")
        try:
            return await self._serve_known(asked, request, body)
        except Purged:
            refusal = self._serving.refusal(asked.tenant)
            self._refused(asked, request, refusal)
            raise refusal from None
        except KcmError as error:
            self._refused(asked, request, error)
            raise

    def _refused(self, asked: subjects.DataSubject, request: CoreRequest, error: KcmError) -> None:
        """Record what was refused, once, in the caller's name only where the caller sealed it."""
        if self._is_copy(request):
            self._unbelieved.record(_copy())
        elif self._is_sealed(asked, request):
            self._tell(asked, request, error.code, request.count)
        else:
            self._unbelieved.record(error)

    def _is_copy(self, request: CoreRequest) -> bool:
        """Whether a request of this id, which the seal covers, was served or refused before."""
        return self._asked.get(request.caller, request.request_id) is not None

    def _remember(self, request: CoreRequest) -> None:
        now = self._clock.unix_ms()
        self._asked.add(request.caller, request.request_id, request.deadline_ms, now, made=True)

    def _is_sealed(self, asked: subjects.DataSubject, request: CoreRequest) -> bool:
        """Whether the caller made this very request: its ticket alone can be anybody's copy."""
        clear = request.clear(self._me.region, asked.operation, asked.tenant, asked.service)
        try:
            session, _ = self._sessions.session(request, self._clock.unix_ms())
            if asked.operation == "unwrap":
                _open(session, request, clear, _blobs(request))
            else:
                self._check_seal(asked.operation, request, clear)
        except (KcmError, Purged):
            return False
        return True

    def _admit(self, asked: subjects.DataSubject, request: CoreRequest) -> None:
        """Refuse who is not known, and what they may not ask; it is on record, whoever sent it.

        What is not believed is counted by itself: it must not hide what a Gateway did.
        """
        try:
            _, caller = self._sessions.session(request, self._clock.unix_ms())
        except KcmError as error:
            if error.code is Code.FORBIDDEN:
                self._unbelieved.record(error)
            raise
        if caller.role is Role.GATEWAY and may_ask(caller, asked.tenant, asked.service):
            return
        refusal = KcmError(Code.FORBIDDEN, "the caller may not ask for that tenant and service")
        if not self._is_sealed(asked, request):
            self._unbelieved.record(refusal)
            raise refusal
        self._remember(request)
        self._outside.record(refusal, actor=request.caller, tenant=asked.tenant)
        raise refusal

    async def _serve_known(
        self, asked: subjects.DataSubject, request: CoreRequest, body: bytes
    ) -> bytes:
        """Serve; look once more for what another Core accepted a moment ago."""
        try:
            return await self._serve(asked, request, body)
        except KcmError as error:
            if error.code not in _UNKNOWN or self._fetch is None:
                raise
        await self._fetch(asked.tenant, asked.service)
        return await self._serve(asked, request, body)

    async def _serve(self, asked: subjects.DataSubject, request: CoreRequest, body: bytes) -> bytes:
        if not self._incarnations.knows(request.caller, request.incarnation):
            # Whoever computes when a kill is complete has to know of this incarnation as well.
            raise KcmError(Code.UNAVAILABLE, "this Core has not read the caller's record yet")
        permit = self._serving.begin(asked.tenant, self._clock.elapsed())
        _check_version(asked.operation, request.l3_version)
        clear = request.clear(self._me.region, asked.operation, asked.tenant, asked.service)
        if not self._opener.is_open(asked.tenant, asked.service, request.l3_version):
            self._check_seal(asked.operation, request, clear)
        key = await self._opener.service_key(asked.tenant, asked.service, request.l3_version)
        # From here on nothing waits.
        if self._is_copy(request):
            raise _copy()
        left = self._serving.still(permit, self._clock.elapsed())
        ring = self._vault.ring(asked.tenant)
        if ring is None:
            raise KcmError(Code.TENANT_SEALED)
        # Asked again: a session that made room for others meanwhile is opened from its ticket.
        session, _ = self._sessions.session(request, self._clock.unix_ms())
        digest = sha256(body).digest()
        work = self._wrap if asked.operation == "wrap" else self._unwrap
        lease_ms = min(self._lease_ms, int(left * 1000))
        sealed, failed = work(ring, key, request, session, clear, digest, lease_ms)
        self._serving.still(permit, self._clock.elapsed())
        self._tell(asked, request, Code.OK, failed)
        return encode(CoreReply(v=1, callee=self._me.name, sealed=sealed))

    def _check_seal(self, operation: str, request: CoreRequest, clear: bytes) -> None:
        session, _ = self._sessions.session(request, self._clock.unix_ms())
        if operation == "unwrap":
            _open_blobs(session, request, clear)
            return
        with self._scratch.borrow(request.count * limits.KEY_SIZE) as keys:
            _open(session, request, clear, keys)

    def _wrap(
        self,
        ring: Keyring,
        key: ServiceKey,
        request: CoreRequest,
        session: Session,
        clear: bytes,
        digest: bytes,
        lease_ms: int,
    ) -> tuple[bytes, int]:
        reply = memoryview(bytearray(_HEAD + request.count * limits.WRAPPED_SIZE))
        with self._scratch.borrow_keys(request.count) as keys:
            _open(session, request, clear, keys.view)
            self._vault.wrap(ring, key, request.purpose, keys, reply[_HEAD:])
            return self._seal(session, key, digest, reply, lease_ms), 0

    def _unwrap(
        self,
        ring: Keyring,
        key: ServiceKey,
        request: CoreRequest,
        session: Session,
        clear: bytes,
        digest: bytes,
        lease_ms: int,
    ) -> tuple[bytes, int]:
        count = request.count
        keys_at = _HEAD + count
        blobs = _open_blobs(session, request, clear)
        with (
            self._scratch.borrow_keys(count) as keys,
            self._scratch.borrow(keys_at + len(keys.view)) as reply,
        ):
            bad = self._vault.unwrap(ring, key, request.purpose, blobs, keys)
            reply[_HEAD:keys_at] = bytes((STATUS_OK,)) * count
            for position in bad:
                reply[_HEAD + position] = STATUS_TAMPERED
            reply[keys_at:] = keys.view
            return self._seal(session, key, digest, reply, lease_ms), len(bad)

    def _seal(
        self, session: Session, key: ServiceKey, digest: bytes, reply: memoryview, lease_ms: int
    ) -> bytes:
        REPLY_HEAD.pack_into(reply, 0, lease_ms, key.version)
        nonce = self._random.public(NONCE_SIZE)
        return session.seal_reply(digest, self._me.name, reply, nonce)

    def _tell(
        self, asked: subjects.DataSubject, request: CoreRequest, code: Code, failed: int
    ) -> None:
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


def _open(session: Session, request: CoreRequest, clear: bytes, out: memoryview) -> None:
    if len(request.sealed) != sealed_size(len(out)):
        raise KcmError(Code.MALFORMED, "the columns are not as long as their count says")
    try:
        session.open_request(request.request_id, clear, request.sealed, out)
    except InvalidTag:
        raise KcmError(Code.FORBIDDEN, "the request was not sealed for this subject") from None


def _blobs(request: CoreRequest) -> memoryview:
    return memoryview(bytearray(request.count * limits.WRAPPED_SIZE))


def _open_blobs(session: Session, request: CoreRequest, clear: bytes) -> memoryview:
    """The wrapped keys of an unwrap, which are no secret; ``malformed`` when they cost too much."""
    blobs = _blobs(request)
    _open(session, request, clear, blobs)
    if request.count > limits.PREFIXES_MAX and count_prefixes(blobs) > limits.PREFIXES_MAX:
        raise KcmError(Code.MALFORMED, "the keys have too many different nonce prefixes")
    return blobs


def _check_version(operation: str, version: int) -> None:
    """Nobody wraps under an old key, and no record was made under "the current one"."""
    if operation == "wrap" and version:
        raise KcmError(Code.MALFORMED, "keys are wrapped under the current version")
    if operation == "unwrap" and not version:
        raise KcmError(Code.KEY_DESTROYED, "versions of a service key count from 1")
