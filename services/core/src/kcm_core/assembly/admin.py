"""The table of all admin requests that a Core serves."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.coordinator.evidence_export import EvidenceExport
from kcm_runtime.admin_endpoint import AdminEndpoint
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import decode
from kcm_schemas.roster import OperatorRole

from kcm_core.api.admin_rules import CoreRules
from kcm_core.api.app_requests import AppRequests
from kcm_core.api.hold_requests import HoldRequests
from kcm_core.api.list_requests import ListRequests
from kcm_core.api.registry_adoption import RegistryAdoption
from kcm_core.api.registry_requests import RegistryRequests
from kcm_core.api.roster_requests import RosterRequests
from kcm_core.api.tenant_list import TenantList
from kcm_core.assembly.key_service import KeyService
from kcm_core.assembly.kill_switch import KillSwitchParts
from kcm_core.assembly.ports import Ports
from kcm_core.assembly.registry import RegistryParts
from kcm_core.root_keys.link_validation import LinkValidator
from kcm_core.root_keys.monitor import KeyMonitor

ADMIN: Final = frozenset({OperatorRole.ADMIN})
SECURITY: Final = frozenset({OperatorRole.SECURITY})


def admin_requests(
    ports: Ports, parts: KillSwitchParts, keys: KeyService, registry: RegistryParts
) -> AdminEndpoint:
    """Make the endpoint with the whole table."""
    rules = CoreRules(ports.host.me, registry.baseline, ports.replica_state.revocations)
    endpoint = AdminEndpoint(ports.host, "admin", rules)
    _serve_registry(endpoint, ports, keys, registry)
    _serve_lists(endpoint, ports)
    _serve_holds(endpoint, ports, parts)
    _serve_roster(endpoint, ports, parts)
    adoption = RegistryAdoption(
        me=ports.host.me,
        registry=ports.replica_state.registry,
        baseline=registry.baseline,
        recovery=registry.recovery,
        compare=registry.keeper.compare,
    )
    endpoint.serve("registry", {"show": adoption.show})
    endpoint.serve_named("registry", {"adopt": adoption.adopt}, ADMIN)
    endpoint.serve("key", {"status": _KeyUse(parts.monitor).show})
    return endpoint


def _serve_registry(
    endpoint: AdminEndpoint, ports: Ports, keys: KeyService, registry: RegistryParts
) -> None:
    registry_requests = RegistryRequests(
        ports.host,
        ports.replica_state.registry,
        feed=ports.feed,
        creator=keys.creator,
        linker=LinkValidator(ports.host, ports.unsealer, ports.limits.l1_deadline_s),
        rewrapper=keys.rewrapper,
        keeper=registry.keeper,
    )
    endpoint.serve("tenant", {"put": registry_requests.put_tenant}, ADMIN)
    endpoint.serve("link", {"put": registry_requests.put_link}, ADMIN)
    endpoint.serve("service", {"put": registry_requests.put_service}, ADMIN)
    state = ports.replica_state
    apps = AppRequests(
        ports.host, state.registry, state.revocations, ports.feed, puts=registry_requests
    )
    endpoint.serve("app", {"put": apps.put}, ADMIN | SECURITY)
    endpoint.serve("app", {"show": apps.show, "list": apps.page})


def _serve_lists(endpoint: AdminEndpoint, ports: Ports) -> None:
    lists = ListRequests(
        TenantList(
            ports.host, ports.replica_state, feed=ports.feed, store=ports.store, vault=ports.vault
        )
    )
    endpoint.serve(
        "tenant", {"list": lists.tenants, "find": lists.find_tenant, "show": lists.show_tenant}
    )
    endpoint.serve("link", {"list": lists.links})
    endpoint.serve("service", {"list": lists.services})


def _serve_holds(endpoint: AdminEndpoint, ports: Ports, parts: KillSwitchParts) -> None:
    holds = HoldRequests(parts.kills)
    endpoint.serve("hold", {"put": holds.put}, SECURITY)
    endpoint.serve(
        "hold",
        {
            "status": holds.status,
            "show": holds.show,
            "list": holds.page,
            "preview": holds.preview,
        },
    )
    revocations = ports.replica_state.revocations
    export = EvidenceExport(parts.kills, parts.results, revocations, parts.switch)
    endpoint.serve("hold", export.verbs)


def _serve_roster(endpoint: AdminEndpoint, ports: Ports, parts: KillSwitchParts) -> None:
    rostering = RosterRequests(
        ports.host,
        ports.replica_state,
        rosters=parts.switch.rosters,
        feed=ports.feed,
        lift_pages=parts.switch.lift_pages,
        store=ports.store,
    )
    endpoint.serve("roster", rostering.verbs)


class _KeyUse:
    """The number of root keys that this Core has in use: each Core has its own count."""

    def __init__(self, monitor: KeyMonitor) -> None:
        self._monitor: Final = monitor

    async def show(self, request: AdminRequest) -> KeyUse:
        """Answer ``key status``."""
        decode(Empty, request.payload)
        return self._monitor.use()
