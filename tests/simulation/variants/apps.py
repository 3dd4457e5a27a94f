"""Naive applications: a held key, an old entry or an old grant goes on to count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.replica.applications import Applications
from kcm_schemas.app import App

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
