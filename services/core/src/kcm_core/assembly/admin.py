"""The table of all admin requests that a Core serves."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.coordinator.evidence_export import EvidenceExport
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import decode

from kcm_core.api.admin import Admin
from kcm_core.api.registry_adoption import RegistryAdoption
from kcm_core.api.roster_requests import RosterRequests
from kcm_core.api.tenant_list import TenantList
from kcm_core.assembly.key_service import KeyService
from kcm_core.assembly.kill_switch import KillSwitchParts
from kcm_core.assembly.ports import Ports
from kcm_core.assembly.registry import RegistryParts
from kcm_core.root_keys.link_validation import LinkValidator
from kcm_core.root_keys.monitor import KeyMonitor


def admin_requests(
    ports: Ports, parts: KillSwitchParts, keys: KeyService, registry: RegistryParts
) -> Admin:
    """Make the table."""
    host, state, switch = ports.host, ports.state, parts.switch
    admin = _admin(ports, parts, keys, registry)
    rostering = RosterRequests(
        host,
        state,
        rosters=switch.rosters,
        feed=ports.feed,
        lift_pages=switch.lifts.pages,
        store=ports.store,
    )
    adoption = RegistryAdoption(
        membership=host.me,
        registry=state.registry,
        memory=registry.memory,
        joining=registry.recovery,
        compare=registry.keeper.compare,
    )
    export = EvidenceExport(parts.kills, parts.results, state.revocations, switch)
    admin.serve("roster", rostering.verbs)
    admin.serve("hold", export.verbs)
    admin.serve("key", {"status": _KeyUse(parts.monitor).show})
    admin.serve_named("registry", adoption.verbs)
    return admin


def _admin(
    ports: Ports, parts: KillSwitchParts, keys: KeyService, registry: RegistryParts
) -> Admin:
    """Serve tenants, links, services and holds."""
    host, state = ports.host, ports.state
    return Admin(
        membership=host.me,
        feed=ports.feed,
        registry=state.registry,
        listing=TenantList(host, state, feed=ports.feed, store=ports.store, vault=ports.vault),
        maker=keys.creator,
        linker=LinkValidator(host, ports.unsealer, ports.limits.l1_deadline_s),
        relinker=keys.rewrapper,
        keeper=registry.keeper,
        memory=registry.memory,
        kills=parts.kills,
        emit=host.emit,
        clock=host.clock,
    )


class _KeyUse:
    """The number of root keys that this Core has in use: each Core has its own count."""

    def __init__(self, monitor: KeyMonitor) -> None:
        self._monitor: Final = monitor

    async def show(self, request: AdminRequest) -> KeyUse:
        """Answer ``key status``."""
        decode(Empty, request.payload)
        return self._monitor.use()
