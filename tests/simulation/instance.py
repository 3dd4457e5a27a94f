"""One incarnation of an instance: production's kill switch over simulated brokers, clocks and keys.

What a Core and a Gateway have in common. The parts are composed as ``kcm_core.assembly`` and
``kcm_gateway.assembly`` compose them; what is simulated comes in through the ports alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.applications import Applications
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Delivery
from kcm_schemas.codec import pack, unpack
from kcm_schemas.codes import Code, KcmError
from kcm_trust.envelopes import Untrusted

from tests.simulation.clocks import SimClock, SimRandomness
from tests.simulation.disk import SimDisk, hold_files
from tests.simulation.log import SimLog
from tests.simulation.operations import Operation
from tests.simulation.plan import Member
from tests.simulation.registry import bucket_reader
from tests.simulation.trust import member
from tests.simulation.variants import REVOCATIONS
from tests.simulation.vault import SERVICE

if TYPE_CHECKING:
    from tests.simulation.world import World

IN_FLIGHT_MAX: Final = 256
"""Requests being worked on at once, as in ``kcm_runtime.nats.request_server``."""


class Instance:
    """An incarnation of a Core or a Gateway."""

    def __init__(self, world: World, who: Member) -> None:
        self.world: Final = world
        self.who: Final = who
        variant = world.plan.variant
        loop, network, region = world.loop, world.network, who.region
        self.node: Final = loop.node(who.name, world.plan.rates[who.name])
        self.incarnation: Final = world.random.randbytes(16)
        disk = world.disks.setdefault(who.name, SimDisk())
        self.me: Final = member(world.rosters.open(disk), who.name, self.incarnation)
        self.region_bus: Final = network.connect(self.node, region, "region", side=who.side)
        self.control_bus: Final = network.connect(self.node, region, "control", side=who.side)
        self.clock: Final = SimClock(
            loop,
            self.node,
            wall_s=world.plan.wall_s[who.name],
            stands_in_suspend=variant == "clock-stands-in-suspend",
        )
        self.randomness: Final = SimRandomness(world.random)
        self.host: Final = Host(
            self.me, self.clock, self.randomness, self.emit, world.random.random
        )
        self.state: Final = replica_state(region, world.plan.timing, variant, self.me.key_target)
        self.registry: Final = self.state.registry
        self.revocations: Final = self.state.revocations
        self.freshness: Final = self.state.freshness
        self.admission: Final = self.state.admission
        self.held_apps: Final = HeldKeys(self.revocations, "app")
        self.applications: Final = Applications(
            self.registry, self.freshness, region, self.clock, self.held_apps
        )
        self.stream: Final = SimLog(world.streams[region], self.region_bus, variant)
        self.hold_store: Final[HoldStore] = (
            hold_files(loop, self.node, disk) if who.role == "core" else NullHoldStore()
        )
        self.switch: Final = KillSwitch(
            self.host,
            self.state,
            stream=self.stream,
            hold_store=self.hold_store,
            control_bus=self.control_bus,
            purge=self.purge,
        )
        for record in world.records:
            self.revocations.register(record)
        bucket = world.buckets.get(region)
        self.reads: Final = bucket_reader(self, bucket) if bucket else None
        self.feed: Final[RegistryFollower | None] = self.reads.feed if self.reads else None
        if self.feed is not None:
            self.switch.on_registry(self.feed.read_again)
        self.ready = False
        self._operations = 0
        self._admission: set[asyncio.Task[None]] = set()

    @property
    def following(self) -> Any:
        """Its follower of the region's stream."""
        return self.stream.following

    async def start(self) -> None:
        """Catch up, then serve."""
        raise NotImplementedError

    async def catch_up(self) -> None:
        """Know the registry and every hold; only then is anybody served."""
        await self.know_registry()
        if self.world.plan.variant == "lease-at-start":
            self.spawn(self.switch.start())
        else:
            await self.switch.start()

    async def know_registry(self) -> None:
        """Read the registry, where it can change."""
        if self.feed is not None:
            await self.feed.start()

    def purge(self, tenant: str) -> int:
        """Drop a tenant's keys at once; told to the oracle before anything else."""
        overtaken = self.world.oracle.operations.purged(self.who.name, self.incarnation, tenant)
        if overtaken:
            self.world.coverage.saw("a purge while a worker uses the key")
        count = self.drop(tenant)
        self.world.purged(self)
        return count

    def unload(self, tenant: str) -> int:
        """Drop a tenant's keys when a lease ended: no kill, the tenant may be opened again."""
        self.world.oracle.note(f"{self.who.name} unloads {tenant}")
        return self.drop(tenant)

    def drop(self, tenant: str) -> int:
        """Drop a tenant's keys; returns how many."""
        raise NotImplementedError

    def emit(self, type: str, **fields: Any) -> None:  # noqa: A002 - the port's own name
        """Audit is no part of this."""

    def serves(self, tenant: str) -> bool:
        """Whether it would serve a tenant, were it asked at this moment."""
        now = self.clock.elapsed()
        try:
            self.admission.recheck(self.admission.admit(tenant, now), now)
        except KcmError:
            return False
        return self.ready

    def allows(self, app: str, tenant: str, verb: str) -> bytes | None:
        """The key with which an application may do something here at this moment, if it may.

        Raises ``unavailable`` while that cannot be decided here.
        """
        try:
            entry = self.applications.acting(app)
        except Untrusted:
            return None
        allowed = entry.covers(verb, tenant, SERVICE) and self.applications.left_s(app) > 0
        return entry.public_key if allowed else None

    def has_keys(self, tenant: str) -> bool:
        """Whether it could serve a tenant without anybody else."""
        return True

    def began(self, tenant: str) -> Operation:
        """An operation with a tenant's keys begins here."""
        self._operations += 1
        operation = (self.who.name, self.incarnation, self._operations)
        self.world.oracle.operations.began(operation, tenant)
        return operation

    async def serve(
        self, subject: str, queue: str, work: Callable[[str, list[Any]], Awaitable[list[Any]]]
    ) -> None:
        """Answer requests, each in a task of its own, as the request server does."""

        async def receive(message: Delivery) -> None:
            if len(self._admission) < IN_FLIGHT_MAX:
                self.spawn(self._answer(message, work))

        await self.region_bus.subscribe(subject, receive, queue)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of this incarnation."""
        task = asyncio.get_running_loop().create_task(work)
        self._admission.add(task)
        task.add_done_callback(self._admission.discard)

    async def _answer(
        self, message: Delivery, work: Callable[[str, list[Any]], Awaitable[list[Any]]]
    ) -> None:
        try:
            reply = [Code.OK.value, *(await work(message.subject, unpack(message.data)))]
        except KcmError as error:
            reply = [error.code.value]
        try:
            await self.region_bus.publish(message.reply, pack(reply))
        except KcmError:
            return  # it could not be sent, and nothing is kept


def replica_state(region: str, timing: Timing, variant: str, own_key: str) -> ReplicaState:
    """The state of an incarnation that knows nothing yet, as the variant breaks it."""
    registry = Registry()
    revocations = REVOCATIONS.get(variant, Revocations)(registry, region, own_key)
    freshness = Freshness(timing)
    return ReplicaState(
        registry, revocations, freshness, Admission(freshness, revocations, registry, region)
    )


def read(answer: bytes) -> list[Any]:
    """What an answer says after its code; raises the refusal."""
    code, *rest = unpack(answer)
    if code != Code.OK.value:
        raise KcmError(Code(code))
    return rest
