"""The parts of a Core that handle keys: load, create, rewrap, and wrap and unwrap for Gateways."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_keymem.slots import Slots
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.replica.applications import Applications
from kcm_killswitch.replica.own_key import report_own_hold
from kcm_schemas import data_subjects
from kcm_schemas.app import App
from kcm_schemas.roster import Operator
from kcm_sessions.sessions import Sessions

from kcm_core.api.asks import Asks
from kcm_core.api.gateway_sessions import GatewaySessions
from kcm_core.api.operator_sessions import operator_sessions
from kcm_core.api.wrap import Callers, WrapApi
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
    app_sessions: Sessions[App]
    operator_sessions: Sessions[Operator]
    slots: Slots
    """The memory of ``app_sessions`` and ``operator_sessions``."""
    wrapping: WrapApi
    creator: KeyCreator
    rewrapper: RootRewrapper

    def close(self) -> None:
        """Wipe the keys of all sessions."""
        self.sessions.close()
        self.app_sessions.close()
        self.operator_sessions.close()
        self.slots.close()

    async def begin(self, subject: str, body: bytes) -> bytes:
        """Serve what begins a session; raises ``KcmError``.

        The verb ``open`` opens one with a Gateway, ``open-app`` one with an application, which a
        Gateway carries, and ``open-operator`` one with an operator.
        """
        match data_subjects.read_session(subject):
            case data_subjects.OPEN_APP:
                return self.app_sessions.begin(body)
            case data_subjects.OPEN_OPERATOR:
                return self.operator_sessions.begin(body)
            case _:
                return await self.sessions.handle(subject, body)

    def start(self) -> None:
        """Wipe what has ended by time."""
        self.sessions.start()
        self.app_sessions.start()
        self.operator_sessions.start()


def key_service(ports: Ports, monitor: KeyObserver, incarnations: Incarnations) -> KeyService:
    """Make the parts: every use of a root key is reported to ``monitor``.

    Only callers whose incarnation is in ``incarnations`` are served.
    """
    loader = key_loader(ports, monitor)
    held = HeldKeys(ports.replica_state.revocations, "instance")
    report_own_hold(held, ports.host.me)
    sessions = GatewaySessions(ports.host, ports.session_keys, incarnations, held)
    slots = Slots()
    asks = Asks(ports.host, ports.session_keys, _applications(ports), slots.lend)
    wrapping = WrapApi(
        ports.host,
        ports.replica_state.admission,
        loader=loader,
        vault=ports.vault,
        callers=Callers(sessions, asks),
        lease_ms=ports.limits.lease_ms,
        fetch=ports.feed.fetch_service,
        room=ports.audit_room,
    )
    return KeyService(
        loader=loader,
        sessions=sessions,
        app_sessions=asks.sessions,
        operator_sessions=operator_sessions(ports.host, ports.session_keys, slots.lend),
        slots=slots,
        wrapping=wrapping,
        creator=_creator(ports, loader),
        rewrapper=_rewrapper(ports),
    )


def _applications(ports: Ports) -> Applications:
    state = ports.replica_state
    held = HeldKeys(state.revocations, "app")
    region, clock = ports.host.me.region, ports.host.clock
    return Applications(state.registry, state.freshness, region, clock, held)


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
