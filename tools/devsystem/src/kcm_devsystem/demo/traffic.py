"""Continuous traffic of a tenant, and the results with their times."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from kcm._internal.client import Client
from kcm_runtime.clock import Clock
from kcm_schemas.codes import Code, KcmError

RECORDS: Final = 16
"""Records of one request."""

DEADLINE_S: Final = 2.0
"""Deadline of a request in seconds."""

PAUSE_S: Final = 0.02
"""Seconds between two rounds. The processes of the demo share one machine with other programs."""


@dataclass(slots=True)
class Stream:
    """One tenant's traffic through one client: encrypts, and decrypts the result."""

    client: Client
    tenant: str
    service: str
    clock: Clock
    answers: int = 0
    last_success: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    """Decrypted batches that differ from the plaintexts. The number must be 0."""

    async def run(self, stop: asyncio.Event) -> None:
        """Send one request after another until ``stop`` is set."""
        round_ = 0
        while not stop.is_set():
            round_ += 1
            plaintexts = [f"{self.tenant} {round_} {i}".encode() for i in range(RECORDS)]
            try:
                await self._ask(plaintexts)
            except KcmError as error:
                self.codes[error.code.value] += 1
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, plaintexts: list[bytes]) -> None:
        sealed = await self.client.encrypt(
            self.tenant, self.service, plaintexts, deadline_s=DEADLINE_S
        )
        self._answered(sealed.codes)
        opened = await self.client.decrypt(
            self.tenant, self.service, sealed.values, deadline_s=DEADLINE_S
        )
        self._answered(opened.codes)
        self.wrong += opened.values != plaintexts

    def _answered(self, codes: list[Code]) -> None:
        self.answers += 1
        if any(code is Code.OK for code in codes):
            self.last_success = self.clock.elapsed()


@asynccontextmanager
async def running(streams: Iterable[Stream]) -> AsyncIterator[None]:
    """Run the traffic until the block ends.

    After an error, too, ``stop`` is set: a stream ends although a library loses its cancellation.
    """
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.run(stop))
        try:
            yield
        finally:
            stop.set()
