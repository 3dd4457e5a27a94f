"""A running Gateway: the engine, and the request server around it.

Requests contain batches in columns and an absolute deadline; a late request is rejected and not
executed. While the audit buffer is full, requests are refused: an action that cannot be recorded is
not done.

The answer lease is counted from the arrival of the request. The requester counts it from the
sending, which was no later. So no reply is accepted after its end, and the duration of the work is
not subtracted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.timing import ANSWER_MAX_S
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.requests import check_deadline
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits, record, subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, EncryptReply, EncryptRequest
from kcm_schemas.version import VERSION
from kcm_trust.verify import may_ask

from kcm_gateway.config import GatewayConfig
from kcm_gateway.embedded import EmbeddedGateway
from kcm_gateway.engine import Batch

RECORD_GROWTH_MAX: Final = record.OVERHEAD_MAX + 5
"""The most bytes by which a record is longer than its plaintext on the wire."""

EVENTS: Final = {"encrypt": EventType.DATA_ENCRYPT, "decrypt": EventType.DATA_DECRYPT}
"""The event type of each operation: a requester cannot choose it."""


class GatewayService:
    """The engine on the bus."""

    def __init__(
        self,
        config: GatewayConfig,
        membership: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        self._me: Final = membership
        self._clock: Final = clock
        self._member: Final = EmbeddedGateway(config, membership, clock, randomness)
        self._engine: Final = self._member.engine
        self._audit: Final = self._member.audit
        self._service: Final = RequestServer(
            self._member.region_bus,
            clock,
            name="kcm-gateway",
            service_id=membership.incarnation.hex(),
            version=VERSION,
            metadata={"instance": membership.name, "region": membership.region},
        )

        self._leaving: Final = TaskSet()
        self._left = False
        membership.rosters.listen(self._judge_again)

    def _judge_again(self, _names: frozenset[str]) -> None:
        """Leave requests to other Gateways once this one may not act any more."""
        if not self._me.acts and not self._left:
            self._left = True
            self._leaving.spawn(self._service.drain())

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._member.start()
        region = self._me.region
        await self._service.add(
            "data", subjects.gateway_all(region), self.handle, f"gateway-{region}"
        )
        await self._service.announce()

    async def close(self) -> None:
        """Finish requests in progress, wipe every key, and end the registration."""
        await self._service.drain()
        await self._member.close()

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request; raises ``KcmError``."""
        arrived = self._clock.elapsed()
        asked = subjects.read_data(subject)
        event = EVENTS.get(asked.operation, EventType.DATA_REFUSED)
        if not self._audit.has_room:
            # Not recorded either: the rest of the buffer is reserved for purges.
            raise KcmError(Code.UNAVAILABLE, self._audit.refusal)
        count, code, failed = 0, Code.OK, 0
        try:
            match asked.operation:
                case "encrypt":
                    request = decode(EncryptRequest, body)
                    count = len(request.plaintexts)
                    self._check(asked, request.deadline_ms)
                    done = await self._encrypt(asked, request)
                    lease_ms, (values, codes) = self._lease_ms(done, arrived), done.columns()
                    return encode(EncryptReply(v=1, lease_ms=lease_ms, records=values, codes=codes))
                case "decrypt":
                    wanted = decode(DecryptRequest, body)
                    count = len(wanted.records)
                    self._check(asked, wanted.deadline_ms)
                    done = await self._engine.decrypt(
                        asked.tenant, asked.service, wanted.records, _contexts(wanted.contexts)
                    )
                    failed = done.failed
                    lease_ms, (values, codes) = self._lease_ms(done, arrived), done.columns()
                    return encode(
                        DecryptReply(v=1, lease_ms=lease_ms, plaintexts=values, codes=codes)
                    )
                case _:
                    raise KcmError(Code.MALFORMED, "a Gateway serves encrypt and decrypt")
        except KcmError as error:
            code, failed = error.code, count
            raise
        except Exception:
            code, failed = Code.INTERNAL, count
            raise
        finally:
            self._audit.emit(
                event,
                tenant=asked.tenant,
                service=asked.service,
                code=code,
                count=count,
                failed=failed,
            )

    async def _encrypt(self, asked: subjects.DataSubject, request: EncryptRequest) -> Batch:
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

    def _lease_ms(self, done: Batch, arrived: float) -> int:
        """Return the answer lease in milliseconds, counted from the request's arrival."""
        spent = self._clock.elapsed() - arrived
        return int(min(done.lease_s + spent, ANSWER_MAX_S) * 1000)

    def _check(self, asked: subjects.DataSubject, deadline_ms: int) -> None:
        check_deadline(deadline_ms, self._clock.unix_ms())
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
