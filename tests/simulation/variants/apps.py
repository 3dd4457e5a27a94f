"""Naive applications: a held key, an old entry or an old grant goes on to count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_core.api.asks import Asks, Unwrap, Verdict
from kcm_core.api.gateway_sessions import GatewaySessions
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.replica.applications import Applications
from kcm_schemas.app import App
from kcm_schemas.asks import Asked
from kcm_schemas.session import Ticket
from kcm_schemas.vault import STATUS_OK, STATUS_UNKNOWN_ASK
from kcm_sealing.replay_window import ReplayWindow
from kcm_sessions.session_keys import SessionPrivate
from kcm_sessions.sessions import OpenSession

from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class Unheld(HeldKeys):
    def has(self, name: str, public_key: bytes) -> bool:
        return False


class ByName(HeldKeys):
    def has(self, name: str, public_key: bytes) -> bool:
        return any(
            one.hold.scope == self._scope and one.hold.target.startswith(f"{name}.")
            for one in self._revocations.holds
            if not one.lifted
        )


class ReadOnce(Applications):
    def acting(self, caller: str) -> App:
        known: dict[str, App] = self.__dict__.setdefault("read", {})
        known.setdefault(caller, super().acting(caller))
        self.left_s(caller)
        return known[caller]


class Unleased(Applications):
    def left_s(self, caller: str) -> float:
        return FOREVER


class Unchecked(Asks):
    def judge(self, unwrap: Unwrap, asked: Sequence[Asked]) -> list[Verdict]:
        return []


class Untagged(Asks):
    def _tagged(self, unwrap: Unwrap, one: Asked, session: OpenSession, part: slice) -> bool:
        return True


class Endless(Asks):
    def _verdict(self, unwrap: Unwrap, one: Asked, start: int, stop: int) -> Verdict:
        done = super()._verdict(unwrap, one, start, stop)
        late = done.status == STATUS_UNKNOWN_ASK and done.target
        return replace(done, status=STATUS_OK) if late else done


class Anything(ReplayWindow):
    def take(self, counter: int) -> bool:
        return True


class Unwindowed(GatewaySessions):
    def find(self, caller: str, session_id: bytes) -> OpenSession:
        session = super().find(caller, session_id)
        session.window = Anything()
        return session


class Forgetful(GatewaySessions):
    def _remember(self, key: SessionPrivate, ticket: Ticket, public_key: bytes) -> None:
        """Every ticket is new."""


def app_holds_unread(instance: Instance) -> None:
    """A hold on the key of an application is kept, and its requests are served."""
    _as(instance.held_apps, Unheld)


def app_hold_on_the_name(instance: Instance) -> None:
    """A hold on a key of an application takes all of its keys out of service."""
    _as(instance.held_apps, ByName)


def grants_read_once(instance: Instance) -> None:
    """An instance goes by the entry that it read first of an application."""
    _as(instance.applications, ReadOnce)


def grants_without_lease(instance: Instance) -> None:
    """An instance that differs from the Cores' registry serves applications by what it knows."""
    _as(instance.applications, Unleased)


def _as(part: Any, naive: type[Any]) -> None:
    part.__class__ = naive


def _door(instance: Instance) -> Any:
    """What a Core checks of those who ask it, where they ask."""
    return core_part(instance, "door")


def core_app_holds_unread(instance: Instance) -> None:
    """Cores leave it to Gateways that the key of an application is held."""
    if _door(instance) is not None:
        _as(instance.held_apps, Unheld)


def gateway_holds_unread(instance: Instance) -> None:
    """Cores leave it to a Gateway whose key is held to serve nothing."""
    if (door := _door(instance)) is not None:
        _as(door.held, Unheld)


def asks_unchecked(instance: Instance) -> None:
    """A Core opens for a Gateway what that wants."""
    if (door := _door(instance)) is not None:
        _as(door.asks, Unchecked)


def tags_unchecked(instance: Instance) -> None:
    """A Core believes a Gateway that an application with a session asks for a key."""
    if (door := _door(instance)) is not None:
        _as(door.asks, Untagged)


def asks_never_end(instance: Instance) -> None:
    """What an application asked once, a Gateway may use for ever."""
    if (door := _door(instance)) is not None:
        _as(door.asks, Endless)


def copies_executed(instance: Instance) -> None:
    """A Core executes a request of a Gateway whenever it comes."""
    if (door := _door(instance)) is not None:
        _as(door.gateways, Unwindowed)


def ticket_opens_again(instance: Instance) -> None:
    """A ticket opens a session, and opens it again with no memory of what was executed."""
    if (door := _door(instance)) is not None:
        _as(door.gateways, Forgetful)
