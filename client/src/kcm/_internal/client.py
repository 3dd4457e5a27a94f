"""The client of a Gateway: encrypts and decrypts batches of records within a deadline.

A batch is split into messages. A bounded number of messages is in flight at once. Records that fail
for a temporary reason are sent again until the caller's deadline. If the whole batch is refused,
the call raises the refusal. Otherwise a failed record does not affect the others: ``results`` has
the value or exception of each, and ``values`` has all values or raises.

``encrypt_one`` and ``decrypt_one`` collect concurrent calls into one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from kcm_runtime.ownership import Once, Owner
from kcm_schemas import data_subjects, limits, record
from kcm_schemas.data import DekScope

from kcm._internal.arguments import (
    bound,
    check_bytes,
    check_deadline,
    check_name,
    check_scope,
)
from kcm._internal.batches import MESSAGE_RESERVE, BatchResult, Outcome, split
from kcm._internal.client_context import ClientContext
from kcm._internal.coalescer import Coalescer, Key
from kcm._internal.counts import Counts, Tally
from kcm._internal.job import Answer, Job, Operation
from kcm._internal.known_roster import KnownRoster
from kcm._internal.rpc import Environment, Refusals, Send, ask_once, attempt_s, pause
from kcm._internal.sealed_channel import SealedChannel
from kcm._internal.session_memory import SessionRandomness
from kcm._internal.transport import Asking, Opener, Transport, open_nats
from kcm.errors import DeadlineExceeded, Discarded, ServiceError, TooLarge, Unreached

IN_FLIGHT_MAX: Final = 8
"""Messages of one client in flight at once. More would only queue at the Gateway."""

DEADLINE_S: Final = 5.0
"""Default deadline of a call, in seconds."""


class Client:
    """Encrypts and decrypts in one region, in one event loop. See ``kcm.sync`` for threads."""

    def __init__(
        self, transport: Transport, region: str, around: Environment | None = None
    ) -> None:
        self.region: Final = region
        self._transport: Final = transport
        self._around: Final = around or Environment()
        self._owner: Final = Owner("the client")
        self._tally: Final = Tally(self._around.clock)
        self._slots: Final = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._coalescer: Final = Coalescer(self._send_gathered)

    @classmethod
    def connect(
        cls,
        context: ClientContext | str | Path | None = None,
        region: str | None = None,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
    ) -> Once[Client]:
        """Return a context manager that connects to a region's broker and closes at the end.

        If the context names an application, requests are sealed with its key. Without one, they
        travel in clear, and Gateways serve only what a plain application may ask.

        ``context`` is a context or the path of its file; without it, ``$KCM_CONTEXT`` or the file
        of ``kcm dev up``. Raises ``ContextError`` or ``Unavailable``.
        """

        async def run() -> AsyncGenerator[Client, None]:
            found = context if isinstance(context, ClientContext) else ClientContext.load(context)
            chosen = found.region(region)
            world = around or Environment()
            transport = await open_channel(found, chosen, opener, world)
            client = cls(transport, chosen, world)
            client._owner.check()  # this loop owns it
            try:
                yield client
            finally:
                await client.close()

        return Once("Client.connect()", run)

    @property
    def counts(self) -> Counts:
        """Messages sent, messages repeated and replies discarded by this client.

        A discarded reply costs time but no data: its records are sent again.
        """
        return self._tally.counts

    async def close(self) -> None:
        """Finish the collected calls and disconnect. Further calls do nothing."""
        if self._owner.elsewhere or self._owner.closed:
            return  # after a fork, the connection is the parent's
        self._owner.check()
        await self._coalescer.close()
        self._owner.close()
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
        """Encrypt plaintexts. ``values`` of the result are records in the same order.

        ``contexts`` is bound to the records, and decryption needs the same bytes: ``bytes`` for
        all records, or a list with one entry for each (at most 4096 bytes). With
        ``dek_scope="batch"`` the records of a message share a data key. ``deadline_s`` bounds the
        call in seconds, retries included. Raises ``KcmError`` if the whole batch is refused.
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
        """Decrypt records. ``values`` of the result are plaintexts in the same order.

        ``contexts`` are those of the encryption. ``deadline_s`` bounds the call in seconds, retries
        included. Raises ``KcmError`` if the whole batch is refused.
        """
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
        """Encrypt one plaintext. Concurrent calls share a message. Raises ``KcmError``."""
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
        """Decrypt one record. Concurrent calls share a message. Raises ``KcmError``."""
        return await self._one(Key("decrypt", tenant, service), encrypted, context, deadline_s)

    async def _one(self, key: Key, payload: bytes, context: bytes, deadline_s: float) -> bytes:
        check_deadline(deadline_s)
        # Checked here, so that one caller's mistake does not fail the other calls of a message.
        self._job(key.operation, key.tenant, key.service, [payload], [context], "record")
        return await self._coalescer.submit(key, payload, context, deadline_s)

    async def _send_gathered(
        self, key: Key, payloads: list[bytes], contexts: list[bytes], deadline_s: float
    ) -> BatchResult:
        own = contexts if any(contexts) else None
        job = self._job(key.operation, key.tenant, key.service, payloads, own, "record")
        return await self._run(job, deadline_s)

    def _job(
        self,
        operation: Operation,
        tenant: str,
        service: str,
        payloads: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None,
        dek_scope: DekScope,
    ) -> Job:
        self._owner.check()
        check_name("tenant", tenant)
        check_name("service", service)
        check_bytes("plaintexts" if operation == "encrypt" else "records", payloads)
        check_scope(dek_scope)
        return Job(
            operation=operation,
            place=(self.region, tenant, service),
            subject=data_subjects.gateway(self.region, operation, tenant, service),
            prefix=record.prefix(self.region, tenant, service, 1)[:-4],
            dek_scope=dek_scope,
            payloads=payloads,
            contexts=bound(contexts, len(payloads)),
        )

    async def _run(self, job: Job, deadline_s: float) -> BatchResult:
        check_deadline(deadline_s)
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
            try:
                async with asyncio.TaskGroup() as group:
                    for part in parts:
                        group.create_task(self._part(job, part, until, outcome))
            except BaseExceptionGroup as group_error:
                raise group_error.exceptions[0] from None
        return outcome.result()

    async def _part(self, job: Job, part: list[int], until: float, outcome: Outcome) -> None:
        """Send one message; send again those of its records that a retry may help."""
        pending, attempt, away, refusals = part, 0, 0, Refusals()
        while True:
            self._owner.check()
            self._tally.sent(again=attempt + away > 0)
            reached = True
            try:
                values, codes = await self._attempt(job, pending, until)
                outcome.put(pending, values, codes)
            except ServiceError as error:
                outcome.fail(pending, error)
                reached = not isinstance(error, Unreached)
                if isinstance(error, Discarded):
                    self._tally.discarded()
                if refusals.final(error, self._around.clock.elapsed()):
                    return
            pending = outcome.again(pending)
            if not pending:
                return
            if reached:
                waited = await pause(self._around, attempt, until)
                attempt, away = attempt + 1, 0
            else:
                waited = await pause(self._around, away, until, attempts_max=float("inf"))
                away += 1
            if not waited:
                return

    async def _attempt(self, job: Job, indexes: list[int], until: float) -> Answer:
        def remaining() -> float:
            return until - self._around.clock.elapsed()

        if self._slots.locked():
            try:
                async with asyncio.timeout(remaining()):
                    await self._slots.acquire()
            except TimeoutError:
                raise DeadlineExceeded("too many requests of this client are in flight") from None
        else:
            await self._slots.acquire()  # at once
        try:
            return await ask_once(
                self._around,
                self._send_of(job, indexes),
                job.subject,
                partial(job.build, indexes),
                partial(job.read, len(indexes)),
                attempt_s(remaining()),
            )
        finally:
            self._slots.release()

    def _send_of(self, job: Job, indexes: list[int]) -> Send:
        """Return what sends one message: a sealed request to decrypt also asks for its keys."""
        if job.operation == "decrypt" and isinstance(self._transport, Asking):
            return partial(self._transport.decrypt, job.key_names(indexes))
        return self._transport.request


async def open_channel(
    context: ClientContext, region: str, opener: Opener, around: Environment
) -> Transport:
    """Connect to a region's broker, and seal requests if the context names an application."""
    identity = context.app_identity()
    transport = await opener(context.app_address(region), "kcm-sdk")
    if identity is None:
        return transport
    try:
        roster = KnownRoster(context, transport, region, around.clock)
        await roster.refresh()
        return SealedChannel(transport, identity, region, roster, around.clock, SessionRandomness())
    except BaseException:
        await transport.close()
        raise
