"""Continuous traffic through the SDK: every answer with the instants of its request and its own."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from kcm import Client, ClientContext
from kcm._internal.client import open_channel
from kcm._internal.rpc import Environment
from kcm._internal.transport import open_nats
from kcm_runtime.clock import SystemClock
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, EncryptReply, decode_reply

from tests.chaos.history import Accepted, History, Refused

SERVICE = "crm"
PAUSE_S = 0.25
"""Seconds between two rounds of a stream: 15 streams have 60 rounds a second, on one machine."""
BATCH = 6
DEADLINE_S = 2.0
RECONNECT_S = 0.3

CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record that a client got, and what is in it."""

    tenant: str
    region: str
    record: bytes
    plaintext: bytes


class Witness:
    """A transport that notes when a request left and when an answer with content came.

    The SDK decides about an answer right after it came, with no wait in between. One call is under
    way at a time, so what came before an accepted result belongs to it.
    """

    def __init__(self, inner) -> None:
        self._inner = inner
        self.answers: list[tuple[float, float]] = []

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        return await self._noted(self._inner.request, subject, body, timeout_s)

    async def decrypt(self, names, subject: str, body: bytes, timeout_s: float) -> bytes:
        return await self._noted(partial(self._inner.decrypt, names), subject, body, timeout_s)

    async def _noted(self, send, subject: str, body: bytes, timeout_s: float) -> bytes:
        sent = CLOCK.elapsed()
        answer = await send(subject, body, timeout_s)
        at = CLOCK.elapsed()
        try:
            model = EncryptReply if ".encrypt." in subject else DecryptReply
            reply = decode_reply(model, answer)
        except KcmError:
            return answer
        in_time = at - sent <= min(timeout_s, reply.lease_ms / 1000)
        if in_time and (not reply.codes or Code.OK in reply.codes):
            self.answers.append((sent, at))
        return answer

    async def close(self) -> None:
        await self._inner.close()


class Stream:
    """One tenant's traffic in one region, one call after another."""

    def __init__(
        self, context: ClientContext, region: str, tenant: str, history: History, seed: int
    ) -> None:
        self.region = region
        self.tenant = tenant
        self.sealed: list[Sealed] = []
        self.last_served = 0.0
        self._context = context
        self._history = history
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._witness: Witness | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop, whatever happens."""
        while not stop.is_set():
            try:
                async with self._client() as client:
                    while not stop.is_set():
                        await self._round(client)
                        await asyncio.sleep(PAUSE_S * self._chance.uniform(0.5, 1.5))
            except KcmError as error:
                self._refused("connect", error.code)
                await asyncio.sleep(RECONNECT_S)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        """A client whose channel is watched where its replies are not sealed any more."""
        channel = await open_channel(self._context, self.region, open_nats, Environment())
        self._witness = Witness(channel)
        client = Client(self._witness, self.region)
        try:
            yield client
        finally:
            await client.close()

    async def _round(self, client: Client) -> None:
        number = next(self._numbers)
        count = BATCH if number % 3 == 0 else 1
        plaintexts = [f"{self.tenant} {self.region} {number} {i}".encode() for i in range(count)]
        made = await self._ask("encrypt", self._encrypt(client, plaintexts))
        fresh = [
            Sealed(self.tenant, self.region, record, plaintext)
            for record, plaintext in zip(made, plaintexts, strict=False)
            if record is not None
        ]
        self.sealed += fresh
        old = self._chance.choices(self.sealed, k=min(2, len(self.sealed))) if self.sealed else []
        for batch in (fresh, old):
            if batch:
                opened = await self._ask("decrypt", self._decrypt(client, batch))
                for one, plaintext in zip(batch, opened, strict=False):
                    if plaintext is not None and plaintext != one.plaintext:
                        self._history.wrong.append(f"{self.tenant} in {self.region}: other content")

    async def _encrypt(self, client: Client, plaintexts: list[bytes]) -> list[bytes | KcmError]:
        if len(plaintexts) == 1:
            one = await client.encrypt_one(
                self.tenant, SERVICE, plaintexts[0], deadline_s=DEADLINE_S
            )
            return [one]
        done = await client.encrypt(self.tenant, SERVICE, plaintexts, deadline_s=DEADLINE_S)
        return done.results

    async def _decrypt(self, client: Client, batch: list[Sealed]) -> list[bytes | KcmError]:
        records = [one.record for one in batch]
        if len(records) == 1:
            one = await client.decrypt_one(self.tenant, SERVICE, records[0], deadline_s=DEADLINE_S)
            return [one]
        done = await client.decrypt(self.tenant, SERVICE, records, deadline_s=DEADLINE_S)
        return done.results

    async def _ask(self, operation: str, call) -> list[bytes | None]:
        """Wait for a call's values; what was refused is None, and noted."""
        assert self._witness is not None
        self._witness.answers.clear()
        try:
            results = await call
        except KcmError as error:
            self._refused(operation, error.code)
            return []
        values = [None if isinstance(one, KcmError) else one for one in results]
        for code in {one.code for one in results if isinstance(one, KcmError)}:
            self._refused(operation, code)
        if any(value is not None for value in values):
            for sent, at in self._witness.answers:
                self.last_served = at
                self._history.accepted.append(
                    Accepted(self.tenant, self.region, operation, sent, at)
                )
        return values

    def _refused(self, operation: str, code: Code) -> None:
        refused = Refused(self.tenant, self.region, operation, code.value, CLOCK.elapsed())
        self._history.refused.append(refused)
