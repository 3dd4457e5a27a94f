"""Continuous traffic, and what came of it: every answer with its time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from kcm._internal.client import Client
from kcm_runtime.clock import Clock
from kcm_schemas.codes import Code, KcmError

RECORDS: Final = 16
"""Records of one request."""

DEADLINE_S: Final = 2.0
"""Seconds that a request may take."""


@dataclass(slots=True)
class Stream:
    """One tenant's traffic through one client: encrypts, and decrypts what it encrypted."""

    client: Client
    tenant: str
    service: str
    clock: Clock
    answers: int = 0
    last_success: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    """Answers that were not what was encrypted: there must be none."""

    async def run(self, stop: asyncio.Event) -> None:
        """Ask, one request after another, until told to stop."""
        round_ = 0
        while not stop.is_set():
            round_ += 1
            plaintexts = [f"{self.tenant} {round_} {i}".encode() for i in range(RECORDS)]
            try:
                await self._ask(plaintexts)
            except KcmError as error:
                self.codes[error.code.value] += 1
                # A refusal comes at once; asking again at once would only measure the refusal.
                await asyncio.sleep(0.005)

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
