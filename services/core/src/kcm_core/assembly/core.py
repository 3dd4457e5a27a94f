"""A running Core: its parts, in the order in which they may start.

A Core serves nothing before it has replayed the whole control stream, so a Core that was down when
a kill was placed knows of the kill before it unseals anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_keymem.random import KeyRandomness
from kcm_keymem.secure_memory import as_metadata, log_secure_memory
from kcm_runtime.audit.stream import AuditStream
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import CORE_STREAMS, KEYS, VAULT_STREAMS, await_streams
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.nats.stream_watch import StreamWatch
from kcm_runtime.tasks import TaskSet
from kcm_schemas import data_subjects, subjects
from kcm_schemas.roster import Role
from kcm_schemas.version import VERSION
from kcm_trust.verify import Untrusted

from kcm_core.assembly.parts import assemble
from kcm_core.assembly.ports import Ports
from kcm_core.assembly.production import production
from kcm_core.config import CoreConfig
from kcm_core.root_keys.hints.supervisor import Listeners
from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Policy
from kcm_core.unsealer.isolation import Isolation
from kcm_core.unsealer.port import UnsealerPort


class Core:
    """All parts of one Core, connected to the bus."""

    def __init__(
        self,
        config: CoreConfig,
        me: InstanceContext,
        unsealer: UnsealerPort,
        clock: Clock,
        randomness: KeyRandomness,
        isolation: Callable[[], Isolation],
    ) -> None:
        outside = production(config, me, unsealer, clock, randomness)
        self._me: Final = me
        self._isolation: Final = isolation
        self._ports: Final = outside.ports
        self._audit: Final = outside.audit
        self._region_bus: Final = outside.region_bus
        self._control_bus: Final = outside.control_bus
        self._vault_bus: Final = outside.vault_bus
        self._vault_watch: Final = StreamWatch(
            outside.vault_bus,
            KEYS,
            clock,
            every_s=config.timing.renew_every_s,
            patience_s=config.timing.control_lease_s / 2,
        )
        parts = assemble(outside.ports)
        self._kill_switch: Final = parts.kill_switch
        self._switch: Final = parts.kill_switch.switch
        self._keys: Final = parts.keys
        self._registry: Final = parts.registry
        self._admin: Final = parts.admin
        self._sealed_admin: Final = parts.sealed_admin
        self._trimmer: Final = _trimmer(outside.ports, outside.region_bus, config)
        self._listeners: Final = Listeners(
            config.hints, config.unsealer_environment, self._kill_switch.monitor.hinted
        )
        self._leaving: Final = TaskSet()
        self._left = False
        me.rosters.listen(self._judge_again)
        self._server: Final = RequestServer(
            self._region_bus,
            clock,
            name="kcm-core",
            service_id=me.incarnation.hex(),
            version=VERSION,
            metadata={"instance": me.name, "region": me.region},
            state=lambda: as_metadata() | isolation().as_metadata(),
        )

    async def start(self) -> None:
        """Connect, catch up, serve."""
        await self._region_bus.start()
        await self._control_bus.start()
        await self._vault_bus.start()
        await await_streams(self._region_bus, self._me.region, CORE_STREAMS)
        await await_streams(self._vault_bus, self._me.region, VAULT_STREAMS)
        self._vault_watch.start()
        await self._audit.start()
        await self._ports.feed.start()
        await self._registry.keeper.start()
        await self._switch.start()
        await self._registry.recovery.start()
        await self._kill_switch.kills.start()
        await self._kill_switch.regions.start()
        self._kill_switch.monitor.start()
        self._trimmer.start()
        self._kill_switch.compaction.start()
        self._listeners.start()
        self._keys.start()
        region, admin = self._me.region, self._admin.handle
        queue = f"core-{region}"
        sessions = data_subjects.core_sessions(region, self._me.name)
        await self._server.add("sessions", sessions, self._keys.begin, "")
        keys = data_subjects.core_all(region, self._me.name)
        lane = self._keys.sessions.lane
        await self._server.add("keys", keys, self._keys.wrapping.handle, "", lane=lane)
        everywhere = subjects.admin(region, "hold", "put")  # all else is sealed for one Core
        await self._server.add("admin", everywhere, admin, queue, urgent=True)
        own = subjects.admin_all_at(region, self._me.name)
        await self._server.add("admin-here", own, self._sealed_admin.handle, "", urgent=True)
        await self._server.announce()
        log_secure_memory()
        self._isolation().log()

    def _judge_again(self, names: frozenset[str]) -> None:
        """Stop serving if this Core may not act any more; unload keys that may verify no more.

        A key that was wrapped by a Core whose roster entry changed is verified again.
        """
        if not self._me.acts and not self._left:
            self._left = True
            self._leaving.spawn(self._leave())
        if any(map(self._may_be_core, names)):
            for tenant in self._ports.vault.open_tenants:
                self._ports.purge(tenant)

    async def _leave(self) -> None:
        """Stop taking requests, so that the Cores that may act get them."""
        await self._control_bus.unsubscribe(subjects.pulls(self._me.region))
        await self._region_bus.unsubscribe(subjects.registry_question(self._me.region))
        await self._server.drain()

    def _may_be_core(self, name: str) -> bool:
        """Whether a name is a Core of this region, or may have been one that left the roster."""
        verifier = self._me.verifier
        if any(name == one.operator for one in verifier.roster.operators):
            return False
        try:
            entry = verifier.instance(name)
        except Untrusted:
            return True
        return (entry.role, entry.region) == (Role.CORE, self._me.region)

    async def close(self) -> None:
        """Finish what is in progress, overwrite every key, and end the lease."""
        try:
            await self._server.drain()
        finally:
            self._overwrite_keys()
        self._kill_switch.monitor.close()
        self._kill_switch.compaction.close()
        self._kill_switch.kills.close()
        await self._listeners.close()
        await self._trimmer.close()
        await self._kill_switch.regions.close()
        self._registry.comparison.close()
        self._registry.recovery.close()
        self._registry.keeper.close()
        self._ports.store.close()
        self._kill_switch.automatic_holds.close()  # after all that may still place a hold
        await self._switch.close()
        await self._ports.feed.close()
        self._admin.close()
        self._sealed_admin.close()
        self._keys.wrapping.close()
        await self._audit.close()
        self._vault_watch.close()
        await self._vault_bus.close()
        await self._control_bus.close()
        await self._region_bus.close()

    def _overwrite_keys(self) -> None:
        """Overwrite every key of this Core; nothing here waits or fails."""
        for tenant in self._ports.vault.open_tenants:
            self._ports.purge(tenant)
        self._ports.vault.close()
        self._keys.close()
        self._ports.session_keys.close()


def _trimmer(ports: Ports, bus: Connection, config: CoreConfig) -> Trimmer:
    audit, region = config.audit, ports.host.me.region
    return Trimmer(
        ports.host,
        control=ports.stream,
        store=AuditStream(bus, region, ports.host.clock),
        state=TrimFiles(config.state_dir),
        policy=Policy(
            quorum=audit.quorum,
            keep_ms=int(audit.keep_s * 1000),
            keep_full_ms=int(audit.keep_full_s * 1000),
        ),
    )
