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
        held: Any = self._revocations
        return any(
            scope == self._scope and target.startswith(f"{name}.") for scope, target in held._active
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
    _held(instance, Unheld)


def app_hold_on_the_name(instance: Instance) -> None:
    """A hold on a key of an application takes all of its keys out of service."""
    _held(instance, ByName)


def grants_read_once(instance: Instance) -> None:
    """An instance goes by the entry that it read first of an application."""
    _as(instance.applications, ReadOnce)


def grants_without_lease(instance: Instance) -> None:
    """An instance that differs from the Cores' registry serves applications by what it knows."""
    _as(instance.applications, Unleased)


def own_hold_unread(instance: Instance) -> None:
    """An instance keeps a hold on its own key, and serves on."""
    revocations: Any = instance.revocations
    revocations._own_places = revocations._own_places[:1]


def _held(instance: Instance, naive: type[HeldKeys]) -> None:
    applications: Any = instance.applications
    _as(applications._held, naive)


def _as(part: Any, naive: type[Any]) -> None:
    part.__class__ = naive
