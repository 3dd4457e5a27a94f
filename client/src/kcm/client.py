"""The client of a Gateway: encrypt and decrypt in batches, in time.

A batch is split into messages, of which a bounded number is on the way at once; what a message
could not do for reasons that pass is asked again within the caller's deadline. A refusal is a code
of the records it concerns, so one bad record spoils nothing else: ``unwrap()`` raises for the
first one.

``encrypt_one`` and ``decrypt_one`` gather calls that run at the same time into one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from kcm_schemas import limits, record, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import (
    DecryptReply,
    DecryptRequest,
    DekScope,
    EncryptReply,
    EncryptRequest,
)

from kcm.batches import MESSAGE_RESERVE, RECORD_RESERVE, BatchResult, Outcome, split
from kcm.coalesce import Coalescer, Key
from kcm.context import ClientContext
from kcm.errors import DeadlineExceeded, Internal, ServiceError, TooLarge
from kcm.transport import Opener, Transport, open_nats
from kcm.wire import Surroundings, ask_once, attempt_s, pause, read_reply

IN_FLIGHT_MAX: Final = 8
"""Messages of one client on the way at once: more only queue at the Gateway."""

DEADLINE_S: Final = 5.0
"""Seconds that a call may take, unless the caller says otherwise."""

Operation = Literal["encrypt", "decrypt"]
Answer = tuple[list[bytes], list[Code]]


@dataclass(frozen=True, slots=True)
class _Job:
    """A whole batch. ``contexts`` has no entry, one for all records, or one for each."""

    operation: Operation
    subject: str
    prefix: bytes
    dek_scope: DekScope
    payloads: Sequence[bytes]
    contexts: Sequence[bytes]

    def costs(self) -> list[int]:
        added = RECORD_RESERVE
        if self.operation == "encrypt":
            added += len(self.prefix) + limits.WRAPPED_SIZE + 8 + limits.TAG_SIZE
        own = self.contexts if len(self.contexts) == len(self.payloads) else None
        return [
            len(payload) + added + (len(own[index]) if own else 0)
            for index, payload in enumerate(self.payloads)
        ]

    def some(self, indexes: list[int]) -> tuple[list[bytes], list[bytes]]:
        """Payloads and contexts of one message."""
        payloads = [self.payloads[index] for index in indexes]
        if len(self.contexts) <= 1:
            return payloads, list(self.contexts)
        return payloads, [self.contexts[index] for index in indexes]

    def build(self, indexes: list[int], deadline_ms: int) -> bytes:
        payloads, contexts = self.some(indexes)
        match self.operation:
            case "encrypt":
                return encode(
                    EncryptRequest(
                        v=1,
                        deadline_ms=deadline_ms,
                        dek_scope=self.dek_scope,
                        plaintexts=payloads,
                        contexts=contexts,
                    )
                )
            case "decrypt":
                return encode(
                    DecryptRequest(
                        v=1, deadline_ms=deadline_ms, records=payloads, contexts=contexts
                    )
                )

    def read(self, count: int, body: bytes) -> tuple[Answer, float]:
        """A reply as values and codes, one for each of ``count`` records; its lease in seconds."""
        match self.operation:
            case "encrypt":
                encrypted = read_reply(EncryptReply, body)
                values, codes = encrypted.records, encrypted.codes
                lease_ms = encrypted.lease_ms
            case "decrypt":
                decrypted = read_reply(DecryptReply, body)
                values, codes = decrypted.plaintexts, decrypted.codes
                lease_ms = decrypted.lease_ms
        if len(values) != count or len(codes) not in (0, count):
            raise Internal("the answer has another number of records than the request")
        codes = list(codes) or [Code.OK] * count
        if self.operation == "encrypt":
            codes = [
                Code.TAMPERED if code is Code.OK and not value.startswith(self.prefix) else code
                for value, code in zip(values, codes, strict=True)
            ]
        return (values, codes), lease_ms / 1000


class Client:
    """Encrypts and decrypts in one region. Use it from one event loop; see ``kcm.sync`` else."""

    def __init__(
        self, transport: Transport, region: str, around: Surroundings | None = None
    ) -> None:
        self.region: Final = region
        self._transport: Final = transport
        self._around: Final = around or Surroundings()
        self._slots: Final = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._coalescer: Final = Coalescer(self._send_gathered)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        context: ClientContext | str | Path | None = None,
        region: str | None = None,
        *,
        opener: Opener = open_nats,
        around: Surroundings | None = None,
    ) -> AsyncIterator[Client]:
        """Connect to a region's broker as an application and close again at the end.

        ``context`` is a context, a file of one, or none for the usual place. Raises
        ``ContextError`` or ``Unavailable``.
        """
        found = context if isinstance(context, ClientContext) else ClientContext.load(context)
        chosen = found.region(region)
        transport = await opener(found.app_address(chosen), "kcm-sdk")
        client = cls(transport, chosen, around)
        try:
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        """Finish what was gathered and give the connection up."""
        await self._coalescer.close()
        await self._transport.close()

    async def encrypt(
        self,
        tenant: str,
        service: str,
        plaintexts: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        dek_scope: DekScope = "record",
        deadline_s: float = DEADLINE_S,
    ) -> BatchResult:
        """Encrypt; the values are records, in the order of the plaintexts.

        ``contexts`` is bound to the records and has to be given again to decrypt them: none, one
        for all, or one for each (at most 4096 bytes). ``dek_scope="batch"`` lets the records of a
        message share a data key. ``deadline_s`` bounds the call, retries included.
        """
        job = self._job("encrypt", tenant, service, plaintexts, contexts, dek_scope)
        return await self._run(job, deadline_s)

    async def decrypt(
        self,
        tenant: str,
        service: str,
        records: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> BatchResult:
        """Decrypt; the values are plaintexts, in the order of the records."""
        job = self._job("decrypt", tenant, service, records, contexts, "record")
        return await self._run(job, deadline_s)

    async def encrypt_one(
        self,
        tenant: str,
        service: str,
        plaintext: bytes,
        context: bytes = b"",
        *,
        deadline_s: float = DEADLINE_S,
    ) -> bytes:
        """Encrypt one plaintext; calls at the same time share a message. Raises ``KcmError``."""
        return await self._one(Key("encrypt", tenant, service), plaintext, context, deadline_s)

    async def decrypt_one(
        self,
        tenant: str,
        service: str,
        encrypted: bytes,
        context: bytes = b"",
        *,
        deadline_s: float = DEADLINE_S,
    ) -> bytes:
        """Decrypt one record; calls at the same time share a message. Raises ``KcmError``."""
        return await self._one(Key("decrypt", tenant, service), encrypted, context, deadline_s)

    async def _one(self, key: Key, payload: bytes, context: bytes, deadline_s: float) -> bytes:
        # Checked here, so that one caller's mistake is not the failure of all who share a message.
        self._job(key.operation, key.tenant, key.service, [payload], [context], "record")
        return await self._coalescer.submit(key, payload, context, deadline_s)

    async def _send_gathered(
        self, key: Key, payloads: list[bytes], contexts: list[bytes], deadline_s: float
    ) -> BatchResult:
        bound = contexts if any(contexts) else []
        job = self._job(key.operation, key.tenant, key.service, payloads, bound, "record")
        return await self._run(job, deadline_s)

    def _job(
        self,
        operation: Operation,
        tenant: str,
        service: str,
        payloads: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None,
        dek_scope: DekScope,
    ) -> _Job:
        bound = [contexts] if isinstance(contexts, bytes) else list(contexts or ())
        if not all(isinstance(item, bytes) for item in (*payloads, *bound)):
            raise TypeError("payloads and contexts are bytes")
        if len(bound) not in (0, 1, len(payloads)):
            raise ValueError("contexts has no entry, one, or one for each record")
        if any(len(item) > limits.APP_CONTEXT_MAX for item in bound):
            raise ValueError(f"a context has at most {limits.APP_CONTEXT_MAX} bytes")
        return _Job(
            operation=operation,
            subject=subjects.gateway(self.region, operation, tenant, service),
            prefix=record.prefix(self.region, tenant, service, 1)[:-4],
            dek_scope=dek_scope,
            payloads=payloads,
            contexts=bound,
        )

    async def _run(self, job: _Job, deadline_s: float) -> BatchResult:
        until = self._around.until(deadline_s)
        shared = len(job.contexts[0]) if len(job.contexts) == 1 else 0
        outcome = Outcome(len(job.payloads))
        parts = list(split(job.costs(), limits.BODY_MAX - MESSAGE_RESERVE - shared))
        left_out = set(range(len(job.payloads))).difference(*parts)
        if left_out:
            outcome.fail(sorted(left_out), TooLarge("a record does not fit into one request"))
        if len(parts) == 1:
            await self._part(job, parts[0], until, outcome)
        else:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._part(job, part, until, outcome))
        return outcome.result()

    async def _part(self, job: _Job, part: list[int], until: float, outcome: Outcome) -> None:
        """Ask for one message's records, again for those that a retry may help."""
        pending, attempt = part, 0
        while True:
            try:
                values, codes = await self._attempt(job, pending, until)
                outcome.put(pending, values, codes)
            except ServiceError as error:
                outcome.fail(pending, error)
            pending = outcome.again(pending)
            if not pending or not await pause(self._around, attempt, until):
                return
            attempt += 1

    async def _attempt(self, job: _Job, indexes: list[int], until: float) -> Answer:
        def remaining() -> float:
            return until - self._around.clock.elapsed()

        if self._slots.locked():
            try:
                async with asyncio.timeout(remaining()):
                    await self._slots.acquire()
            except TimeoutError:
                raise DeadlineExceeded("too many requests of this client are on the way") from None
        else:
            await self._slots.acquire()  # at once
        try:
            return await ask_once(
                self._around,
                self._transport,
                job.subject,
                partial(job.build, indexes),
                partial(job.read, len(indexes)),
                attempt_s(remaining()),
            )
        finally:
            self._slots.release()
