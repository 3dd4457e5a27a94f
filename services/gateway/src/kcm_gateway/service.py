"""A running Gateway: the engine, and the bus service around it.

Requests carry batches in columns and an absolute deadline; one that arrives late is refused and not
executed. When the audit trail cannot take more, requests are refused: what cannot be recorded is
not done.

An answer's lease is counted from the arrival of its request. Whoever asked counts it from the
sending, which was no later, so nobody accepts it beyond its end, and the time that the work took is
not taken off twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.timing import ANSWER_MAX_S
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.request_server import Service
from kcm_runtime.requests import check_deadline
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
"""Bytes by which a record is longer than its plaintext on the wire, at most."""

EVENTS: Final = {"encrypt": EventType.DATA_ENCRYPT, "decrypt": EventType.DATA_DECRYPT}
"""How a request is recorded: nobody who asks chooses the type."""


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
        self._service: Final = Service(
            self._member.region_bus,
            clock,
            name="kcm-gateway",
            service_id=membership.incarnation.hex(),
            version=VERSION,
            metadata={"instance": membership.name, "region": membership.region},
        )

        self._leaving: asyncio.Task[None] | None = None
        membership.rosters.listen(self._judge_again)

    def _judge_again(self, _names: frozenset[str]) -> None:
        """Leave applications' requests to others, once this Gateway may not act any more."""
        if not self._me.acts and self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._service.drain())

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._member.start()
        region = self._me.region
        await self._service.add(
            "data", subjects.gateway_all(region), self.handle, f"gateway-{region}"
        )
        await self._service.announce()

    async def close(self) -> None:
        """Finish what is in flight, wipe every key, and go off the record."""
        await self._service.drain()
        await self._member.close()

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request; raises ``KcmError``."""
        arrived = self._clock.elapsed()
        asked = subjects.read_data(subject)
        event = EVENTS.get(asked.operation, EventType.DATA_REFUSED)
        if not self._audit.has_room:
            # Not recorded either: the room that is left is for purges.
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
        """For how many milliseconds from the request's arrival the answer may be accepted."""
        spent = self._clock.elapsed() - arrived
        return int(min(done.lease_s + spent, ANSWER_MAX_S) * 1000)

    def _check(self, asked: subjects.DataSubject, deadline_ms: int) -> None:
        check_deadline(deadline_ms, self._clock.unix_ms())
        if not may_ask(self._me.entry, asked.tenant, asked.service):
            raise KcmError(Code.FORBIDDEN, "this Gateway does not serve that tenant and service")


def _contexts(sent: Sequence[bytes]) -> Sequence[bytes] | bytes | None:
    """What a message's list means: nothing, one for all its records, or one for each."""
    if not sent:
        return None
    return sent[0] if len(sent) == 1 else sent
