"""A Gateway in memory, with a real Core behind a wire that a test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kcm_gateway.assembly import Ports, assemble
from kcm_gateway.config import EngineSettings
from kcm_gateway.envelope import Envelope
from kcm_gateway.keys.blocks import Blocks, KeyBlock
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Admission, Permit
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_runtime.host import Host
from kcm_schemas import subjects
from kcm_schemas.control import Hold
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus
from tests.fakes.knowing import knowing
from tests.fakes.stream_log import FakeLog, Stream
from tests.unit import trust_rig
from tests.unit.core_rig import (
    EMBEDDING,
    LINK,
    SERVICE,
    TENANT,
    Core,
    World,
    entry,
    instance_context,
    is_request,
    lease_of,
    signed,
)


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

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        if not is_request(subject):
            return await self.core.answer(subject, body, timeout_s)
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

    async def take_arrivals(self) -> None:
        """Forget the requests that arrived so far: the next ``arrived`` is a new one."""
        while not self.arrived.locked():
            await self.arrived.acquire()


class WatchedAdmission(Admission):
    """Production's admission, counted; a test may pause the process before a check."""

    def __init__(self, clock: Any, *state: Any) -> None:
        super().__init__(*state)
        self._clock = clock
        self.admitted: list[Permit] = []
        self.rechecked: list[Permit] = []
        self.before_recheck: Callable[[], None] = lambda: None

    def admit(self, tenant: str, now: float) -> Permit:
        permit = super().admit(tenant, now)
        self.admitted.append(permit)
        return permit

    def recheck(self, permit: Permit, now: float) -> float:
        self.rechecked.append(permit)
        self.before_recheck()
        return super().recheck(permit, max(now, self._clock.elapsed()))


class WatchedBlocks(Blocks):
    """Production's memory for keys, with a list of all blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[KeyBlock] = []

    def make(self, tenant: str, count: int) -> KeyBlock:
        block = super().make(tenant, count)
        self.made.append(block)
        return block

    def live(self) -> list[KeyBlock]:
        """Blocks with keys in them, whoever holds them."""
        return [block for block in self.made if block.holders > 0 and not block.purged]


class WatchedEnvelope(Envelope):
    """Production's envelope; calls the rig's ``worked`` after each piece of cryptography."""

    def __init__(self, rig: Rig, *names: str) -> None:
        super().__init__(*names)
        self._rig = rig

    def seal_each(self, *of: Any) -> list[bytes]:
        records = super().seal_each(*of)
        self._rig.worked()
        return records

    def seal_shared(self, *of: Any) -> list[bytes]:
        records = super().seal_shared(*of)
        self._rig.worked()
        return records

    def open(self, *of: Any) -> None:
        super().open(*of)
        self._rig.worked()


class Rig:
    """A Gateway: the product's composition over fakes, and the Core that it asks."""

    def __init__(self, core: Core, **settings: Any) -> None:
        self.core = core
        self.clock: Any = core.world.clock
        self.me = instance_context("gw-eu")
        core.incarnations.take(lease_of(self.me), 1, self.clock.elapsed())
        core.registry.put(EMBEDDING)
        self.wire = Wire(core)
        self.registry = Registry()
        self.revocations = Revocations(self.registry, "eu")
        self.freshness = knowing(self.clock.elapsed(), "us")
        self.admission = WatchedAdmission(
            self.clock, self.freshness, self.revocations, self.registry, "eu"
        )
        self.blocks = WatchedBlocks()
        self.worked: Callable[[], None] = lambda: None
        self.looked_up: Callable[[], None] = lambda: None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.fetched: list[str] = []
        parts = assemble(self._ports(), EngineSettings(**settings))
        self.engine, self.switch = parts.engine, parts.switch
        for record in (LINK, TENANT, SERVICE):
            self.revocations.register(record)

    def _ports(self) -> Ports:
        randomness = SystemKeyRandomness()
        self._stores = Bus()
        self._stores.stream.before = self._look_up
        region_bus: Any = self.wire
        buckets: Any = self._stores
        return Ports(
            host=Host(self.me, self.clock, randomness, self._emit),
            replica_state=ReplicaState(
                self.registry, self.revocations, self.freshness, self.admission
            ),
            randomness=randomness,
            region_bus=region_bus,
            buckets=buckets,
            control_bus=self.core.world.wire.join(self.me.name),
            stream=FakeLog(Stream()),
            blocks=self.blocks,
            envelope_of=lambda *names: WatchedEnvelope(self, *names),
            sleep=self.clock.sleep,
        )

    @classmethod
    async def make(cls, path: Path, *, clock: Any = None, **settings: Any) -> Rig:
        """With a clock that the test moves by hand, unless it brings one."""
        world = World(path)
        world.clock = clock or world.clock
        return cls(await world.core().made(), **settings)

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    async def _look_up(self, operation: str, subject: str) -> None:
        """Every access to the registry's bucket; the tests look up tenants only."""
        if operation == "last":
            _, tenant = subjects.bucket_key(subject).split(".")
            self.fetched.append(tenant)
            self.looked_up()

    def store(self, tenant: Tenant) -> None:
        """Into the registry's bucket, which this Gateway has not read."""
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", tenant.tenant)
        self._stores.stream.sequence += 1
        stored = entry(signed(Kind.TENANT, tenant))
        self._stores.stream.stored[subject] = (self._stores.stream.sequence, stored)

    def kill(self, hold: Hold | None = None) -> None:
        """At this Gateway only: the Core has not heard of it."""
        self.switch.learn(signed(Kind.HOLD, hold or trust_rig.hold(), "security"))

    def lift(self, hold: Hold | None = None) -> None:
        one = trust_rig.lift(hold or trust_rig.hold(), "security")
        self.switch.learn(signed(Kind.LIFT, one, "security"))

    async def quiet(self) -> None:
        """Wait until every request of the engine to a Core is over."""
        while self.engine.status().requests:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    def live_keys(self) -> list[KeyBlock]:
        """Memory with keys in it, whoever holds them."""
        return self.blocks.live()
