"""A kill as an operator places it, until a Core says that it is complete, and its lift."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from kcm import Admin
from kcm._internal import statements
from kcm_runtime.clock import SystemClock
from kcm_schemas import limits

WAIT_S: Final = 30.0
"""Seconds after which a kill that is not complete ends the measurement."""

POLL_S: Final = 0.005
"""Seconds between two questions at first. Later it is `ERROR` of the time that it took so far."""

ERROR: Final = 0.01
"""The error of a time by the polling, at most, if it is longer than half a second."""


class Placing:
    """Kills and lifts in one region, on one clock."""

    def __init__(self, admin: Admin, home: str) -> None:
        self.clock: Final = SystemClock()
        self._admin: Final = admin
        self._home: Final = home

    def hold(self, victim: str) -> tuple[bytes, bytes]:
        """The id of a new hold on a tenant, and the hold as it is signed."""
        return statements.hold(
            self._admin.identity,
            scope="tenant",
            target=victim,
            origin=self._home,
            issued_ms=self.clock.unix_ms(),
            reason="benchmark",
            salt=os.urandom(limits.ID_SIZE),
        )

    async def complete(self, hold_id: bytes, raw: bytes) -> float:
        """Place a hold; the seconds until it is complete. Raises ``TimeoutError``."""
        started = self.clock.elapsed()
        async with asyncio.timeout(WAIT_S):
            status = await self._admin.put_hold(self._home, raw)
            while not status.complete:
                await asyncio.sleep(max(POLL_S, ERROR * (self.clock.elapsed() - started)))
                status = await self._admin.hold_status(self._home, hold_id)
        return self.clock.elapsed() - started

    async def lift(self, raw: bytes) -> None:
        """End it again."""
        lift = statements.lift(
            self._admin.identity, raw, issued_ms=self.clock.unix_ms(), reason="benchmark"
        )
        await self._admin.put_hold(self._home, lift)
