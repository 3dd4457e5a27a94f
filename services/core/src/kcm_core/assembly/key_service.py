"""The parts of a Core that handle keys: load, create, rewrap, and wrap and unwrap for Gateways."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.incarnations import Incarnations

from kcm_core.api.gateway_sessions import GatewaySessions
from kcm_core.api.wrap import WrapApi
from kcm_core.assembly.ports import Ports
from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.loader import KeyLoader
from kcm_core.keys.observer import KeyObserver
from kcm_core.keys.root_rewrap import RootRewrapper


@dataclass(frozen=True, slots=True)
class KeyService:
    """The parts that other parts, or the Core's end, need."""

    loader: KeyLoader
    sessions: GatewaySessions
    wrapping: WrapApi
    creator: KeyCreator
    rewrapper: RootRewrapper


def key_service(ports: Ports, monitor: KeyObserver, incarnations: Incarnations) -> KeyService:
    """Make the parts: every use of a root key is reported to ``monitor``.

    Only callers whose incarnation is in ``incarnations`` are served.
    """
    loader = key_loader(ports, monitor)
    held = HeldKeys(ports.replica_state.revocations, "instance")
    sessions = GatewaySessions(ports.host, ports.session_keys, incarnations, held)
    wrapping = WrapApi(
        ports.host,
        ports.replica_state.admission,
        loader=loader,
        vault=ports.vault,
        sessions=sessions,
        lease_ms=ports.limits.lease_ms,
        fetch=ports.feed.fetch_service,
        room=ports.audit_room,
    )
    return KeyService(loader, sessions, wrapping, _creator(ports, loader), _rewrapper(ports))


def key_loader(ports: Ports, monitor: KeyObserver) -> KeyLoader:
    """Make the part that opens keys."""
    return KeyLoader(
        ports.host,
        ports.replica_state,
        store=ports.store,
        vault=ports.vault,
        unsealer=ports.unsealer,
        observer=monitor,
        unload=ports.unload,
        deadline_s=ports.limits.l1_deadline_s,
    )


def _creator(ports: Ports, loader: KeyLoader) -> KeyCreator:
    return KeyCreator(
        ports.host,
        ports.replica_state,
        store=ports.store,
        vault=ports.vault,
        loader=loader,
        unsealer=ports.unsealer,
        seal_key_id=ports.region.seal_key_id,
        deadline_s=ports.limits.l1_deadline_s,
    )


def _rewrapper(ports: Ports) -> RootRewrapper:
    return RootRewrapper(
        ports.host,
        ports.replica_state,
        store=ports.store,
        vault=ports.vault,
        unsealer=ports.unsealer,
        deadline_s=ports.limits.l1_deadline_s,
    )
