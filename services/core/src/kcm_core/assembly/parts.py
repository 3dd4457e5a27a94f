"""All parts of a Core over its ports: the one composition, in production and in tests."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.admin_endpoint import AdminEndpoint

from kcm_core.api.sealed_admin import SealedAdminRequests
from kcm_core.assembly.admin import admin_requests
from kcm_core.assembly.key_service import KeyService, key_service
from kcm_core.assembly.kill_switch import KillSwitchParts, kill_switch, replica
from kcm_core.assembly.ports import Ports
from kcm_core.assembly.registry import RegistryParts, registry_parts


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one Core."""

    kill_switch: KillSwitchParts
    keys: KeyService
    registry: RegistryParts
    admin: AdminEndpoint
    sealed_admin: SealedAdminRequests


def assemble(ports: Ports, switch: KillSwitch | None = None) -> Parts:
    """Make every part once and connect them; nothing runs yet.

    ``switch`` is a replica that was made before of the same ports; tests bring one that they watch.
    """
    switch = switch or replica(ports)
    kill = kill_switch(ports, switch)
    keys = key_service(ports, kill.monitor, switch.registered)
    registry = registry_parts(ports, switch)
    admin = admin_requests(ports, kill, keys, registry)
    sealed = SealedAdminRequests(ports.host, keys.operator_sessions, admin)
    return Parts(kill, keys, registry, admin, sealed)
