"""Foci in which a key of an application or an instance is held, or an entry is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

from tests.simulation.aim import Aim
from tests.simulation.network import Weather
from tests.simulation.plan import Regrant, Scope
from tests.simulation.stream import Store


def _calm(aim: Aim, scope: Scope) -> None:
    """One region, in which nothing goes wrong but this: a key is held."""
    aim.alone()
    aim.plan.weather, aim.plan.store = Weather(), Store()
    aim.plan.faults.clear()
    aim.kill = replace(aim.kill, scope=scope, lift_after=None)
    aim.only(aim.kill)
    aim.plan.lasts = max(aim.plan.lasts, aim.kill.at + 25)
    aim.plan.rates[aim.kill.operator] = 1.0  # whose clock says when it is time


def _regrant(aim: Aim, before_s: float, what: Literal["narrow", "rotate"]) -> None:
    """The entry is changed of the application that the kill is about."""
    aim.plan.change_registry()
    at = max(8.0, aim.kill.at - before_s)
    aim.plan.regrants.append(Regrant(at, aim.kill.operator, aim.kill.pick, what))


def _killed(aim: Aim) -> None:
    """An application's key is held, and applications ask often."""
    _calm(aim, "app")


def _rotated(aim: Aim) -> None:
    """An application's key is held, and then it has another one."""
    _calm(aim, "app")
    _regrant(aim, -4.0, "rotate")


def _narrowed(aim: Aim) -> None:
    """A grant of an application ends; later its key is held."""
    _calm(aim, "app")
    aim.kill_later(45.0)
    _regrant(aim, 30.0, "narrow")


def _late(aim: Aim) -> None:
    """A grant of an application ends, of which Gateways hear nothing."""
    _narrowed(aim)
    aim.add("registry-late-gateways", 32.0, 2 * aim.timing.control_lease_s + 12)


def _instance(aim: Aim) -> None:
    """An instance's key is held."""
    _calm(aim, "instance")


APP_FOCI: Final[dict[str, Callable[[Aim], None]]] = {
    "app-killed": _killed,
    "app-late": _late,
    "app-narrowed": _narrowed,
    "app-rotated": _rotated,
    "instance-killed": _instance,
}
"""By name."""
