"""A running Gateway: the engine, and the request server around it."""

from __future__ import annotations

from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects
from kcm_schemas.version import VERSION

from kcm_gateway.config import GatewayConfig
from kcm_gateway.data_api import DataApi
from kcm_gateway.embedded import EmbeddedGateway


class GatewayService:
    """The engine on the bus."""

    def __init__(
        self,
        config: GatewayConfig,
        me: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        self._me: Final = me
        self._member: Final = EmbeddedGateway(config, me, clock, randomness)
        self._api: Final = DataApi(self._member.host, self._member.engine, self._member.audit)
        self._service: Final = RequestServer(
            self._member.region_bus,
            clock,
            name="kcm-gateway",
            service_id=me.incarnation.hex(),
            version=VERSION,
            metadata={"instance": me.name, "region": me.region},
        )
        self._leaving: Final = TaskSet()
        self._left = False
        me.rosters.listen(self._judge_again)

    def _judge_again(self, _names: frozenset[str]) -> None:
        """Leave requests to other Gateways once this one may not act any more."""
        if not self._me.acts and not self._left:
            self._left = True
            self._leaving.spawn(self._service.drain())

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._member.start()
        region = self._me.region
        await self._service.add(
            "data", data_subjects.gateway_all(region), self._api.handle, f"gateway-{region}"
        )
        await self._service.announce()

    async def close(self) -> None:
        """Finish requests in progress, wipe every key, and end the registration."""
        try:
            await self._service.drain()
        finally:
            await self._member.close()
