"""A running Gateway: the engine, and the request server around it."""

from __future__ import annotations

from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_keymem.secure_memory import as_metadata, log_secure_memory
from kcm_keymem.slots import Slots
from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects
from kcm_schemas.version import VERSION
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import APPLICATIONS, Sessions

from kcm_gateway.config import GatewayConfig
from kcm_gateway.data_api import DataApi
from kcm_gateway.data_events import EVENTS
from kcm_gateway.member import Member
from kcm_gateway.sealed_requests import SealedRequests
from kcm_gateway.standing import StandingApi


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
        if me.entry.application is not None:
            raise ConfigError(
                f"{me.name}: the roster has it as a part of application {me.entry.application},"
                " whose process joins with `EmbeddedGateway.join`; it is no service of its own"
            )
        self._member: Final = Member(config, me, clock, randomness)
        host, self._slots = self._member.host, Slots()
        applications = self._member.applications
        self._keys: Final = SessionKeys(host, randomness, self._slots.lend)
        self._sessions: Final = Sessions(
            host, self._keys, applications, self._slots.lend, APPLICATIONS
        )
        self._sealed: Final = SealedRequests(host, self._sessions)
        self._standing: Final = StandingApi(me, self._member.revocations)
        self._api: Final = DataApi(
            host,
            self._member.engine,
            self._member.audit,
            applications=applications,
            sealed=self._sealed,
            carry=self._member.engine.carry,
        )
        # Answers of Cores must not wait in one socket with the requests of a flood.
        self._requests: Final = Connection(
            config.region_bus, me.name, self._member.region_bus.stores
        )
        self._service: Final = RequestServer(
            self._requests,
            clock,
            name="kcm-gateway",
            service_id=me.incarnation.hex(),
            version=VERSION,
            metadata={"instance": me.name, "region": me.region},
            state=as_metadata,
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
        await self._requests.start()
        log_secure_memory()
        self._sessions.start()
        region, me = self._me.region, self._me.name
        queue = f"gateway-{region}"
        sessions = data_subjects.gateway_sessions(region, me)
        await self._service.add("sessions", sessions, self._begin, "")
        sealed = data_subjects.gateway_all_at(region, me)
        handle, lane = self._api.handle_sealed, self._sessions.lane
        await self._service.add("sealed", sealed, handle, "", lane=lane)
        for operation in sorted(EVENTS):
            plain = data_subjects.gateway_all(region, operation)
            await self._service.add(operation, plain, self._api.handle, queue, lane=lambda _: ())
        roster = data_subjects.gateway_roster(region)
        await self._service.add("roster", roster, self._standing.handle, queue)
        await self._service.announce()

    async def close(self) -> None:
        """Finish requests in progress, wipe every key, and end the registration."""
        try:
            await self._service.drain()
        finally:
            self._sessions.close()
            self._keys.close()
            self._sealed.close()
            self._api.close()
            self._slots.close()
            await self._requests.close()
            await self._member.close()

    async def _begin(self, subject: str, body: bytes) -> bytes:
        """Serve what is for this Gateway alone and has no seal; raises ``KcmError``."""
        if data_subjects.read_session(subject) == "roster":
            return await self._standing.handle(subject, body)
        return await self._sessions.handle(subject, body)
