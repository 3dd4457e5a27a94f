"""A running Core: its parts, in the order in which they may start.

A Core serves nothing before it has replayed the whole control stream, so a Core that was down when
a kill was placed knows of the kill before it unseals anything.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_keymem.arena import secure_memory
from kcm_keymem.random import KeyRandomness
from kcm_runtime.audit.stream import AuditStream
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.provision import CORE_STREAMS, await_streams
from kcm_runtime.nats.request_server import RequestServer
from kcm_schemas import subjects
from kcm_schemas.roster import Role
from kcm_schemas.version import VERSION
from kcm_trust.verify import Untrusted

from kcm_core.assembly.administration import administration
from kcm_core.assembly.foundation import Foundation, foundation
from kcm_core.assembly.key_service import key_service
from kcm_core.assembly.kill_switch import kill_switch
from kcm_core.config import CoreConfig
from kcm_core.root_keys.hints.supervisor import Listeners
from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Policy
from kcm_core.unsealer.port import UnsealerPort

log = logging.getLogger(__name__)


class Core:
    """All parts of one Core, connected to the bus."""

    def __init__(
        self,
        config: CoreConfig,
        membership: InstanceContext,
        unsealer: UnsealerPort,
        clock: Clock,
        randomness: KeyRandomness,
    ) -> None:
        self._base: Final = foundation(config, membership, unsealer, clock, randomness)
        self._feed: Final = self._base.follow_registry()
        self._parts: Final = kill_switch(self._base)
        self._keys: Final = key_service(self._base, self._parts, self._feed)
        self._administration: Final = administration(
            self._base, self._parts, self._keys, self._feed
        )
        self._trimmer: Final = _trimmer(self._base)
        self._listeners: Final = Listeners(
            config.hints, config.unsealer_environment, self._parts.monitor.hinted
        )
        self._leaving: asyncio.Task[None] | None = None
        membership.rosters.listen(self._judge_again)
        self._service: Final = RequestServer(
            self._base.region_bus,
            clock,
            name="kcm-core",
            service_id=membership.incarnation.hex(),
            version=VERSION,
            metadata={"instance": membership.name, "region": membership.region},
        )

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._base.region_bus.start()
        await self._base.control_bus.start()
        await await_streams(self._base.region_bus, self._base.me.region, CORE_STREAMS)
        await self._base.audit.start()
        await self._feed.start()
        await self._administration.keeper.start()
        await self._parts.switch.start()
        await self._administration.recovery.start()
        await self._parts.kills.start()
        await self._parts.regions.start()
        self._parts.monitor.start()
        self._trimmer.start()
        self._parts.compaction.start()
        self._listeners.start()
        region, admin = self._base.me.region, self._administration.admin.handle
        queue = f"core-{region}"
        keys = subjects.core_all(region)
        await self._service.add("keys", keys, self._keys.wrapping.handle, queue)
        everywhere = subjects.admin_all(region)
        await self._service.add("admin", everywhere, admin, queue, urgent=True)
        own = subjects.admin_all_at(region, self._base.me.name)
        await self._service.add("admin-here", own, admin, "", urgent=True)
        await self._service.announce()
        state, lacks = secure_memory()
        if lacks:
            log.warning("secure memory: %s (%s)", state, ", ".join(lacks))

    def _judge_again(self, names: frozenset[str]) -> None:
        """Unload keys that were wrapped by a Core whose roster entry changed: verify them again."""
        if not self._base.me.acts and self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
        if any(map(self._may_be_core, names)):
            for tenant in self._base.vault.open_tenants:
                self._base.purge(tenant)

    async def _leave(self) -> None:
        """Leave requests of callers and of other regions to the Cores that may act."""
        await self._base.control_bus.unsubscribe(subjects.pulls(self._base.me.region))
        await self._base.region_bus.unsubscribe(subjects.registry_question(self._base.me.region))
        await self._service.drain()

    def _may_be_core(self, name: str) -> bool:
        """Whether a name is a Core of this region, or may have been one that left the roster."""
        verifier = self._base.me.verifier
        if any(name == one.operator for one in verifier.roster.operators):
            return False
        try:
            entry = verifier.instance(name)
        except Untrusted:
            return True
        return (entry.role, entry.region) == (Role.CORE, self._base.me.region)

    async def close(self) -> None:
        """Finish what is in progress, overwrite every key, and end the lease."""
        await self._service.drain()
        await self._listeners.close()
        self._parts.monitor.close()
        self._parts.compaction.close()
        await self._trimmer.close()
        for tenant in self._base.vault.open_tenants:
            self._base.purge(tenant)
        self._base.vault.close()
        self._keys.sessions.close()
        self._parts.kills.close()
        self._keys.private.close()
        await self._parts.regions.close()
        self._administration.comparison.close()
        self._administration.recovery.close()
        self._administration.keeper.close()
        self._base.store.close()
        await self._parts.switch.close()
        await self._feed.close()
        self._administration.admin.close()
        self._keys.wrapping.close()
        await self._base.audit.close()
        await self._base.control_bus.close()
        await self._base.region_bus.close()


def _trimmer(base: Foundation) -> Trimmer:
    audit = base.config.audit
    return Trimmer(
        membership=base.me,
        control=base.stream,
        store=AuditStream(base.region_bus, base.me.region, base.clock),
        memory=TrimFiles(base.config.state_dir),
        policy=Policy(
            quorum=audit.quorum,
            keep_ms=int(audit.keep_s * 1000),
            keep_full_ms=int(audit.keep_full_s * 1000),
        ),
        emit=base.emit,
        clock=base.clock,
    )
