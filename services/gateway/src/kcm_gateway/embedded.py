"""A Gateway inside an application: the engine as an instance that serves only this process.

    async with EmbeddedGateway.join("gateway.toml") as member:
        batch = await member.engine.encrypt("acme", "files", pieces)

Payloads never leave the process; only data keys travel, sealed. It receives every kill like any
other Gateway: its incarnations are registered and send receipts. It acts for the application that
the roster names, and within that application's grants: a revocation of the application ends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Self

from kcm_keymem.random import KeyRandomness, SystemKeyRandomness
from kcm_runtime.clock import Clock, SystemClock
from kcm_runtime.config import ConfigError, load
from kcm_runtime.instance import InstanceContext, load_instance
from kcm_runtime.ownership import Once
from kcm_schemas.roster import Role

from kcm_gateway.application_engine import ApplicationEngine
from kcm_gateway.config import GatewayConfig
from kcm_gateway.member import Member


class EmbeddedGateway:
    """A member of the region, with the engine of one application."""

    def __init__(
        self,
        config: GatewayConfig,
        me: InstanceContext,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        """Raise ``ConfigError`` unless the roster names the application."""
        if me.entry.application is None:
            raise ConfigError(
                f"{me.name}: the roster has it as a Gateway for many applications, and none as its"
                " own: `kcm init` makes embedded ones, see the plan's `embedded`"
            )
        member = Member(config, me, clock, randomness)
        self._member: Final = member
        self.engine: Final = ApplicationEngine(
            member.host, member.engine, member.applications, member.audit
        )

    @classmethod
    def join(cls, config_path: str) -> Once[Self]:
        """Join the system with a Gateway's configuration file; raises ``ConfigError``.

        A forked child must join by itself: it would receive no kill.
        """

        async def run() -> AsyncGenerator[Self, None]:
            config, randomness = load(GatewayConfig, config_path), SystemKeyRandomness()
            config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            me = load_instance(config, Role.GATEWAY, randomness)
            member = cls(config, me, SystemClock(), randomness)
            try:
                await member.start()
                yield member
            finally:
                await member.close()

        return Once("EmbeddedGateway.join()", run)

    async def start(self) -> None:
        """Connect, and learn every hold before the first request."""
        await self._member.start()

    async def close(self) -> None:
        """Wipe every key, and end this incarnation's registration."""
        await self._member.close()
