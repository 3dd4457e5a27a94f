"""A Gateway's engine in memory, with a real Core behind a wire that a test holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from kcm_gateway.config import EngineSettings
from kcm_gateway.engine import Gateway
from kcm_gateway.guard import Members
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas.control import Hold

from tests.fakes.bus import Clock
from tests.fakes.knowing import knowing
from tests.unit import trust_rig
from tests.unit.core_rig import LINK, SERVICE, TENANT, Core, World


class Wire:
    """Requests to a Core: counted, held while ``gate`` is closed, and changed by ``after``."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.arrived = asyncio.Semaphore(0)
        self.after: Any = None
        self.most = self._now = 0

    async def __call__(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        self.asked.append(subject)
        self._now += 1
        self.most = max(self.most, self._now)
        self.arrived.release()
        try:
            answer = await self.core.answer(subject, body, timeout_s)
            await self.gate.wait()
        finally:
            self._now -= 1
        return self.after(answer) if self.after is not None else answer

    def count(self, operation: str) -> int:
        return sum(f".{operation}." in subject for subject in self.asked)


class Rig:
    """An engine, its own view of who is killed, and the Core that it asks."""

    def __init__(self, core: Core, **settings: Any) -> None:
        self.core = core
        self.clock: Clock = core.world.clock
        self.wire = Wire(core)
        self.registry = Registry()
        self.revocations = Revocations(self.registry, "eu")
        self.freshness = knowing(self.clock.elapsed(), "us")
        admission = Admission(self.freshness, self.revocations, self.registry, "eu")
        self.guard = Members(admission, self.clock)
        self.fetched: list[str] = []
        self.stored: list[Any] = []
        self.engine = Gateway(
            "eu",
            core=core.client(ask=self.wire),
            guard=self.guard,
            clock=self.clock,
            randomness=SystemKeyRandomness(),
            settings=EngineSettings(**settings),
            fetch=self._fetch,
        )
        for record in (LINK, TENANT, SERVICE):
            self.revocations.register(record)

    @classmethod
    async def make(cls, path: Path, **settings: Any) -> Rig:
        return cls(await World(path).core().made(), **settings)

    async def _fetch(self, tenant: str) -> None:
        self.fetched.append(tenant)
        for record in self.stored:
            self.revocations.register(record)

    def kill(self, hold: Hold | None = None) -> None:
        """At this Gateway only: the Core has not heard of it."""
        one = hold or trust_rig.hold()
        for tenant in self.revocations.learn(HoldState(one, b"raw")).purge:
            self.engine.purge(tenant)

    def lift(self, hold: Hold | None = None) -> None:
        one = hold or trust_rig.hold()
        self.revocations.learn(HoldState(one, b"raw", lift=b"lift"))

    def live_keys(self) -> list[Any]:
        """Memory with keys in it, whoever holds them."""
        tenants = self.engine._blocks._tenants.values()
        return [slab.arena for tenant in tenants for slab in tenant.slabs]
