"""A Gateway as a member of its region: connections, the replica of the kill switch, the engine.

Every Gateway has one: the service, and the one inside an application.
"""

from __future__ import annotations

from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.applications import Applications
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.clock import Clock
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import GATEWAY_STREAMS, await_streams
from kcm_runtime.nats.streams import ControlLog

from kcm_gateway.assembly import Ports, assemble
from kcm_gateway.config import GatewayConfig


class Member:
    """The engine with its connections, its replica of the kill switch and its audit emitter."""

    def __init__(
        self,
        config: GatewayConfig,
        me: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        region = me.region
        self.region_bus: Final = Connection(config.region_bus, me.name)
        self._control_bus: Final = Connection(config.control_bus, me.name)
        self.audit: Final = AuditEmitter(self.region_bus, me, clock)
        self.host: Final = Host(me, clock, randomness, self.audit.emit)
        self._timing: Final = config.timing
        state = ReplicaState.empty(region, config.timing, told=True, own_key=me.key_target)
        self.revocations: Final = state.revocations
        held = HeldKeys(state.revocations, "app")
        self.applications: Final = Applications(
            state.registry, state.freshness, region, clock, held
        )
        ports = Ports(
            host=self.host,
            replica_state=state,
            randomness=randomness,
            region_bus=self.region_bus,
            buckets=self.region_bus,
            control_bus=self._control_bus,
            stream=ControlLog(self.region_bus, region, clock),
        )
        parts = assemble(ports, config.engine)
        self.engine: Final = parts.engine
        self._feed: Final = parts.feed
        self._switch: Final = parts.switch

    async def start(self) -> None:
        """Connect, and learn every hold before the first request."""
        await self.region_bus.start()
        await self._control_bus.start()
        await await_streams(self.region_bus, self.host.me.region, GATEWAY_STREAMS)
        await self.audit.start()
        await self._feed.start()
        await self._switch.start()
        await self._switch.heard_regions(self._timing.pull_every_s * 2)

    async def close(self) -> None:
        """Wipe every key, and end this incarnation's registration."""
        self.engine.close()
        await self._switch.close()
        await self._feed.close()
        await self.audit.close()
        await self._control_bus.close()
        await self.region_bus.close()
