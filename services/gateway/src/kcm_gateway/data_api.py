"""The requests of applications on the bus: encrypt and decrypt, each recorded in the audit trail.

A request is sealed in an application's session with this Gateway, and served if a grant of the
application covers it. A request without a seal, of a *plain* application, has no requester: it is
served if the grants of any plain application cover it.

Requests contain batches in columns and an absolute deadline; a late request is rejected and not
executed. While the audit buffer is full, requests are refused: an action that cannot be recorded is
not done. The grants are checked again before the output, because a request may wait for a Core.

The answer lease is counted from the arrival of the request. The requester counts it from the
sending, which was no later. So no reply is accepted after its end, and the duration of the work is
not subtracted twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from kcm_killswitch.model.timing import ANSWER_MAX_S
from kcm_killswitch.replica.applications import Applications, check_granted
from kcm_runtime.audit.port import AuditRoom
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.fair_queue import NEVER
from kcm_runtime.host import Host
from kcm_runtime.nats.work_slots import work
from kcm_runtime.requests import check_deadline
from kcm_schemas import data_subjects, limits, record
from kcm_schemas.codec import decode, encode, start_of
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, EncryptReply, EncryptRequest, Failure
from kcm_schemas.data_subjects import DataSubject
from kcm_trust.verify import may_ask

from kcm_gateway.data_events import EVENTS, check_room, recorded
from kcm_gateway.engine import Batch, DekScope
from kcm_gateway.keys.asks import AppAsks
from kcm_gateway.sealed_requests import Opened, SealedRequests

RECORD_GROWTH_MAX: Final = record.OVERHEAD_MAX + 5
"""The most bytes by which a record is longer than its plaintext on the wire."""

_UNSERVED: Final = "a Gateway serves encrypt and decrypt"

PLAIN: Final = "plain"
"""The detail of an event whose requester had no key."""


CARRIED_MAX: Final = 16 * 1024
"""Bytes of what begins a session: a ticket has less than half of them."""

Carry = Callable[[str, str, bytes], Awaitable[bytes]]
"""Takes a Core, a verb and a body; returns the Core's reply, or raises ``KcmError``."""


class Engine(Protocol):
    """What encrypts and decrypts: ``kcm_gateway.engine.Gateway``."""

    async def encrypt(
        self,
        tenant: str,
        service: str,
        plaintexts: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        dek_scope: DekScope = "record",
    ) -> Batch:
        """Encrypt a batch; raises ``KcmError``."""
        ...

    async def decrypt(
        self,
        tenant: str,
        service: str,
        records: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        asks: AppAsks | None = None,
    ) -> Batch:
        """Decrypt a batch for which an application asks; raises ``KcmError``."""
        ...


class DataApi:
    """Serves encrypt and decrypt requests with an engine, while the audit trail has room."""

    def __init__(
        self,
        host: Host,
        engine: Engine,
        audit_room: AuditRoom,
        *,
        applications: Applications,
        sealed: SealedRequests,
        carry: Carry,
    ) -> None:
        """``carry`` passes on what begins an application's session with a Core."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._emit: Final = host.emit
        self._engine: Final = engine
        self._audit_room: Final = audit_room
        self._applications: Final = applications
        self._sealed: Final = sealed
        self._carrier: Final = carry
        self._keyless: Final = RejectionLog("a request without a key", host.emit)

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve a request without a seal; raises ``KcmError``."""
        asked = data_subjects.read_data(subject)
        check_room(self._audit_room)
        try:
            if asked.operation not in EVENTS:
                raise KcmError(Code.MALFORMED, _UNSERVED)
            self._check_plain(asked)
        except KcmError as error:
            # Any client of the broker can send these: they are counted, and have no event each.
            self._keyless.record(error)
            raise
        await self._turn(None, asked, body)
        return await self._serve(asked, body, lambda: self._check_plain(asked))

    async def handle_sealed(self, subject: str, body: bytes) -> bytes:
        """Serve a sealed request; raises ``KcmError`` where no seal is possible."""
        asked = data_subjects.read_gateway_at(subject)
        check_room(self._audit_room)
        opened = self._sealed.open_request(asked, body)
        try:
            if asked.operation == data_subjects.CARRIED:
                reply = await self._carry(opened, asked)
            else:
                await self._turn(opened.caller, asked, opened.plain)
                reply = await self._serve(
                    asked, opened.plain, lambda: self._check(opened, asked), opened
                )
        except KcmError as error:
            return self._sealed.refuse(opened, error)
        return self._sealed.reply(opened, reply)

    async def _carry(self, opened: Opened, asked: DataSubject) -> bytes:
        """Pass on what begins a session with a Core of this region; raises ``KcmError``."""
        self._sealed.acting(opened)
        core, verb = asked.tenant, asked.service
        if verb not in ("key", data_subjects.OPEN_APP) or len(opened.plain) > CARRIED_MAX:
            raise KcmError(Code.MALFORMED, "a Gateway carries key and open-app to a Core")
        await work((opened.caller, None), records=1, ends_ms=NEVER)
        try:
            return await self._carrier(core, verb, opened.plain)
        except KcmError as error:  # it is about the Core, not about this Gateway
            return encode(Failure(v=1, error=error.code, detail=error.detail))

    async def _turn(self, caller: str | None, asked: DataSubject, plain: bytes) -> None:
        """Wait for a turn, by application and tenant; raises ``busy``.

        All plain applications count as one, and so do all tenants that are not known here.
        """
        tenant = asked.tenant if self._applications.has_tenant(asked.tenant) else None
        start = start_of(plain)
        records, ends_ms = start.get("plaintexts", start.get("records")), start.get("deadline_ms")
        await work(
            (caller, tenant),
            records=records if isinstance(records, int) else 1,
            ends_ms=ends_ms if isinstance(ends_ms, int) else NEVER,
        )

    def close(self) -> None:
        """Record the refusals that are only counted so far."""
        self._keyless.close()

    def _check(self, opened: Opened, asked: DataSubject) -> float:
        """Return for how many seconds the application, and this Gateway, may do this.

        Raises ``forbidden`` and ``unavailable``.
        """
        check_granted(self._sealed.acting(opened), asked, asked.operation)
        self._check_own(asked)
        return self._applications.left_s(opened.caller)

    def _check_plain(self, asked: DataSubject) -> float:
        """Return for how many seconds a plain application, and this Gateway, may do this.

        Raises ``forbidden``.
        """
        left = self._applications.check_plain(asked, asked.operation)
        self._check_own(asked)
        return left

    async def _serve(
        self,
        asked: DataSubject,
        body: bytes,
        check: Callable[[], float],
        opened: Opened | None = None,
    ) -> bytes:
        arrived = self._clock.elapsed()
        actor, detail = (opened.caller, "") if opened else (None, PLAIN)
        with recorded(self._emit, asked, actor=actor, detail=detail) as tally:
            if asked.operation == "encrypt":
                request = decode(EncryptRequest, body)
                tally.count = len(request.plaintexts)
                check_deadline(request.deadline_ms, self._clock.unix_ms())
                check()
                done = await self._encrypt(asked, request)
                lease_ms = self._lease_ms(min(done.lease_s, check()), arrived)
                values, codes = done.columns()
                return encode(EncryptReply(v=1, lease_ms=lease_ms, records=values, codes=codes))
            if asked.operation == "decrypt":
                wanted = decode(DecryptRequest, body)
                tally.count = len(wanted.records)
                check_deadline(wanted.deadline_ms, self._clock.unix_ms())
                check()
                done = await self._decrypt(asked, wanted, opened)
                lease_ms = self._lease_ms(min(done.lease_s, check()), arrived)
                values, codes = done.columns()
                tally.failed = done.failed
                return encode(DecryptReply(v=1, lease_ms=lease_ms, plaintexts=values, codes=codes))
            raise KcmError(Code.MALFORMED, _UNSERVED)

    async def _decrypt(
        self, asked: DataSubject, request: DecryptRequest, opened: Opened | None
    ) -> Batch:
        return await self._engine.decrypt(
            asked.tenant,
            asked.service,
            request.records,
            _contexts(request.contexts),
            opened.asks if opened else None,
        )

    async def _encrypt(self, asked: DataSubject, request: EncryptRequest) -> Batch:
        size = sum(map(len, request.plaintexts))
        if size + len(request.plaintexts) * RECORD_GROWTH_MAX > limits.BODY_MAX:
            raise KcmError(Code.TOO_LARGE)
        return await self._engine.encrypt(
            asked.tenant,
            asked.service,
            request.plaintexts,
            _contexts(request.contexts),
            dek_scope=request.dek_scope,
        )

    def _lease_ms(self, left_s: float, arrived: float) -> int:
        """Return the answer lease in milliseconds, counted from the request's arrival."""
        spent = self._clock.elapsed() - arrived
        return int(min(left_s + spent, ANSWER_MAX_S) * 1000)

    def _check_own(self, asked: DataSubject) -> None:
        if not may_ask(self._me.entry, asked.tenant, asked.service):
            raise KcmError(
                Code.FORBIDDEN,
                f"{self._me.name} has no grant for tenant {asked.tenant}, service {asked.service}",
            )


def _contexts(sent: Sequence[bytes]) -> Sequence[bytes] | bytes | None:
    """Interpret a message's list: no context, one for all its records, or one for each."""
    if not sent:
        return None
    return sent[0] if len(sent) == 1 else sent
