"""A simulated Gateway: production's kill switch and admission, and an engine that is a model.

The engine is not the one that ``kcm_gateway.assembly`` makes. Production's engine works in locked
memory and encrypts with AES-GCM, which the simulation does not model and which would take most of a
run's time. The model keeps what the simulation checks: an operation is admitted once, its permit is
passed down and checked again after each wait and before the output, keys are pooled and end with
their lease, and a purge drops them. The oracle is told of each operation, which production has no
place for. The real engine's races with a kill are tested in ``tests/unit/test_gateway_kills`` and
``tests/unit/switch/test_races``, over the production composition.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from kcm_gateway.keys.asks import AppAsks, AskPart
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.replica.applications import check_granted
from kcm_schemas import data_subjects
from kcm_schemas.asks import Ask
from kcm_schemas.codec import decode, pack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_trust.envelopes import Untrusted

from tests.simulation.instance import Instance, read
from tests.simulation.plan import Member
from tests.simulation.sessions import GatewayCores
from tests.simulation.variants import broken
from tests.simulation.vault import ANY_CORE, KEY_SIZE, SERVICE

BATCH: Final = 4
"""Keys of one refill."""

CORE_TIMEOUT_S: Final = 2.0
"""Seconds that a Core gets to answer."""


@dataclass(slots=True)
class Pooled:
    """A key, its wrapped form, and the end of its lease on the Gateway's clock."""

    key: bytes
    wrapped: bytes
    until: float
    sent: float
    """When it was asked for."""


class SimGateway(Instance):
    """Encrypts and decrypts for clients."""

    def __init__(self, world: Any, who: Member) -> None:
        super().__init__(world, who)
        self._pools: dict[str, list[Pooled]] = {}
        self._refills: dict[str, asyncio.Task[list[Pooled]]] = {}
        self.cores: Final = GatewayCores(self) if world.plan.asks else None
        broken(world.plan.variant, self)

    async def start(self) -> None:
        await self.catch_up()
        if self.world.plan.variant != "lease-at-start":
            await self.switch.heard_regions(self.world.plan.timing.pull_every_s * 2)
        region = self.who.region
        for operation in ("decrypt", "encrypt"):
            subject = data_subjects.gateway_all(region, operation)
            await self.serve(subject, f"gateway-{region}", self._data)
        if self.cores is not None:
            at = data_subjects.gateway_all_at(region, self.who.name)
            await self.serve(at, self.who.name, self._data_at)
        self.ready = True

    def drop(self, tenant: str) -> int:
        if tenant in self._refills:
            self.world.coverage.saw("a pool's refill in flight when a kill lands")
        return len(self._pools.pop(tenant, []))

    def has_keys(self, tenant: str) -> bool:
        return bool(self._pools.get(tenant))

    async def _data(self, subject: str, body: list[Any]) -> list[Any]:
        return await self._handle(data_subjects.read_data(subject), body)

    async def _data_at(self, subject: str, body: list[Any]) -> list[Any]:
        return await self._handle(data_subjects.read_gateway_at(subject), body)

    async def _handle(self, asked: DataSubject, body: list[Any]) -> list[Any]:
        arrived = self.clock.elapsed()
        app, public, payload, deadline_ms = body
        if self.clock.unix_ms() >= deadline_ms:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        self._check(app, public, asked)
        permit = self.admission.admit(asked.tenant, self.clock.elapsed())
        operation = self.began(asked.tenant)
        try:
            if asked.operation == "encrypt":
                pooled = await self._take(permit)
                done = [pooled.wrapped, xor(payload, pooled.key)]
            else:
                wrapped, sealed, *asks = payload
                part = AppAsks(app, [decode(Ask, one) for one in asks]).part(0)
                until, (key,) = await self._ask("unwrap", asked.tenant, [wrapped], part)
                pooled = Pooled(key, wrapped, until, until)
                done = [xor(sealed, key)]
            if self.world.random.random() < self.world.plan.worker:
                await asyncio.sleep(self.world.random.random() * 0.01)  # a worker uses the key
            now = self.clock.elapsed()
            left = min(self.admission.recheck(permit, now), pooled.until - now)
            left = min(left, self._check(app, public, asked))
            if left <= 0:
                raise KcmError(Code.DEADLINE_EXCEEDED)
        except BaseException:
            self.world.oracle.operations.ended(operation)
            raise
        self.world.oracle.operations.output(operation)
        self.world.replied(asked.tenant)
        # Whoever asked counts from the sending, which was no later than the arrival.
        return [int((left + now - arrived) * 1000), done]

    def _check(self, app: str, public: bytes, asked: DataSubject) -> float:
        """As ``kcm_gateway.data_api`` does, which knows the key by the application's session."""
        try:
            entry = self.applications.acting(app)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, error.reason) from None
        if entry.public_key != public:
            raise KcmError(Code.FORBIDDEN, "the application has another key now")
        check_granted(entry, asked, asked.operation)
        return self.applications.left_s(app)

    async def _take(self, permit: Permit) -> Pooled:
        """A key of the pool, as old as its lease allows: ``KeyPool`` keeps a reserve of it."""
        for _ in range(3):
            pool = self._pools.get(permit.tenant, [])
            while pool:
                pooled = pool.pop()
                if self.clock.elapsed() < pooled.until:
                    return pooled
            await self._join(permit)
        raise KcmError(Code.BUSY)

    async def _join(self, permit: Permit) -> None:
        """Wait for the tenant's refill, which is begun unless one is under way."""
        tenant = permit.tenant
        joined, task = self.clock.elapsed(), self._refills.get(tenant)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._refill(permit))
            self._refills[tenant] = task
            task.add_done_callback(lambda done: self._refilled(tenant, done))
        made = await asyncio.shield(task)
        if self.world.plan.variant == "lease-from-the-join":
            for one in made:
                one.until += joined - one.sent

    def _refilled(self, tenant: str, task: asyncio.Task[list[Pooled]]) -> None:
        if self._refills.get(tenant) is task:
            del self._refills[tenant]
        if not task.cancelled():
            task.exception()  # whoever waits sees it

    async def _refill(self, permit: Permit) -> list[Pooled]:
        tenant, sent = permit.tenant, self.clock.elapsed()
        self.admission.recheck(permit, sent)  # the operation may have waited since its admission
        keys = [self.randomness.public(KEY_SIZE) for _ in range(BATCH)]
        until, blobs = await self._ask("wrap", tenant, keys)
        self.admission.recheck(permit, self.clock.elapsed())
        made = [Pooled(key, blob, until, sent) for key, blob in zip(keys, blobs, strict=True)]
        self._pools.setdefault(tenant, []).extend(made)
        return made

    async def _ask(
        self, operation: str, tenant: str, keys: list[bytes], part: AskPart | None = None
    ) -> tuple[float, list[Any]]:
        """Ask a Core, as ``kcm_gateway.core_client``: a lease runs from the sending."""
        sent = self.clock.elapsed()
        if self.cores is not None:
            lease_ms, done = await self.cores.request(operation, tenant, keys, part, CORE_TIMEOUT_S)
        else:
            deadline_ms = self.clock.unix_ms() + int(CORE_TIMEOUT_S * 1000)
            body = pack([self.who.name, self.incarnation, 0, deadline_ms, keys, []])
            subject = data_subjects.core(self.who.region, ANY_CORE, operation, tenant, SERVICE)
            lease_ms, done = read(await self.region_bus.request(subject, body, CORE_TIMEOUT_S))
        until = sent + lease_ms / 1000
        if self.clock.elapsed() >= until:
            raise KcmError(Code.DEADLINE_EXCEEDED)
        return until, done


def xor(data: bytes, key: bytes) -> bytes:
    """A cipher that is good enough for nobody."""
    return bytes(a ^ b for a, b in zip(data, key, strict=True))
