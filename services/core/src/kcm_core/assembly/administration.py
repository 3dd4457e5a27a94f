"""The parts of a Core that serve operators: the region's registry, and every admin request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.coordinator.evidence_export import EvidenceExport
from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.clock import Clock
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import decode

from kcm_core.api.admin import Admin
from kcm_core.api.registry_adoption import RegistryAdoption
from kcm_core.api.roster_requests import RosterRequests
from kcm_core.api.tenant_list import TenantList
from kcm_core.assembly.foundation import Foundation
from kcm_core.assembly.key_service import KeyService
from kcm_core.assembly.kill_switch import KillSwitchParts
from kcm_core.registry.floors import Floors
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.registry.memory import RegistryMemory
from kcm_core.registry.recovery import RegistryRecovery
from kcm_core.root_keys.link_validation import LinkValidator
from kcm_core.root_keys.monitor import KeyMonitor

AGAIN_S: Final = 0.1
"""Seconds from the end of another Core's lease until the registry is compared again."""


@dataclass(frozen=True, slots=True)
class Administration:
    """The parts that the Core's start and end need."""

    keeper: RegistryKeeper
    recovery: RegistryRecovery
    comparison: Comparison
    admin: Admin


class Comparison:
    """Compares the registry again after Cores that showed another one have ended.

    A living Core that knows another registry repeats its lease entry, which causes a comparison. A
    Core that ended sends nothing more, for example this Core's previous incarnation.
    """

    def __init__(self, lease: RegistryLease, clock: Clock) -> None:
        self._lease: Final = lease
        self._clock: Final = clock
        self._timer: asyncio.TimerHandle | None = None
        self.keeper: RegistryKeeper | None = None

    def compared(self) -> None:
        """The registry has everything that the second store has."""
        again_s = self._lease.compared(self._clock.elapsed())
        self.close()
        if again_s is not None and self.keeper is not None:
            self._timer = asyncio.get_running_loop().call_later(
                again_s + AGAIN_S, self.keeper.compare
            )

    def close(self) -> None:
        """Stop comparing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def administration(
    base: Foundation, parts: KillSwitchParts, keys: KeyService, feed: RegistryFeed
) -> Administration:
    """Make the registry's parts and the table of admin requests."""
    memory = RegistryMemory(
        floors=Floors(base.config.state_dir / "registry-floors"),
        registry=base.registry,
        lease=base.freshness.registry,
        emit=base.emit,
    )
    comparison = Comparison(base.freshness.registry, base.clock)
    keeper = RegistryKeeper(
        membership=base.me,
        connection=base.region_bus,
        feed=feed,
        registry=base.registry,
        directory=base.directory,
        memory=memory,
        settled=parts.switch.record.renew,
        compared=comparison.compared,
        emit=base.emit,
    )
    comparison.keeper = keeper
    parts.switch.on_registry(keeper.compare)
    recovery = RegistryRecovery(
        membership=base.me,
        bus=base.region_bus,
        memory=memory,
        compare=keeper.compare,
        empty=keeper.empty,
        clock=base.clock,
        randomness=base.randomness,
        emit=base.emit,
    )
    admin = _admin(base, parts, keys, feed, keeper, memory)
    _serve_more(base, parts, feed, admin)
    adoption = RegistryAdoption(
        membership=base.me,
        registry=base.registry,
        memory=memory,
        joining=recovery,
        compare=keeper.compare,
    )
    admin.serve_named("registry", adoption.verbs)
    return Administration(keeper, recovery, comparison, admin)


def _admin(
    base: Foundation,
    parts: KillSwitchParts,
    keys: KeyService,
    feed: RegistryFeed,
    keeper: RegistryKeeper,
    memory: RegistryMemory,
) -> Admin:
    """Serve tenants, links, services and holds."""
    return Admin(
        membership=base.me,
        feed=feed,
        registry=base.registry,
        listing=TenantList(
            region=base.me.region,
            core=base.me.name,
            registry=base.registry,
            revocations=base.revocations,
            feed=feed,
            store=base.store,
            vault=base.vault,
            clock=base.clock,
        ),
        maker=keys.creator,
        linker=LinkValidator(
            region=base.me.region,
            unsealer=base.unsealer,
            clock=base.clock,
            randomness=base.randomness,
            deadline_s=base.config.l1_deadline_s,
        ),
        relinker=keys.rewrapper,
        keeper=keeper,
        memory=memory,
        kills=parts.kills,
        emit=base.emit,
        clock=base.clock,
    )


def _serve_more(base: Foundation, parts: KillSwitchParts, feed: RegistryFeed, admin: Admin) -> None:
    """Serve the roster, the evidence of kills, and the use of root keys."""
    rostering = RosterRequests(
        membership=base.me,
        rosters=parts.switch.rosters,
        feed=feed,
        registry=base.registry,
        revocations=base.revocations,
        lift_pages=parts.switch.lifts.pages,
        store=base.store,
        clock=base.clock,
    )
    export = EvidenceExport(parts.kills, parts.results, base.revocations, parts.switch)
    admin.serve("roster", rostering.verbs)
    admin.serve("hold", export.verbs)
    admin.serve("key", {"status": _KeyUse(parts.monitor).show})


class _KeyUse:
    """The number of root keys that this Core has in use: each Core has its own count."""

    def __init__(self, monitor: KeyMonitor) -> None:
        self._monitor: Final = monitor

    async def show(self, request: AdminRequest) -> KeyUse:
        """Answer ``key status``."""
        decode(Empty, request.payload)
        return self._monitor.use()
