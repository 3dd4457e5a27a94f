"""Foci in which a key of an application or an instance is held, or an entry is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

from tests.simulation.aim import Aim
from tests.simulation.network import Weather
from tests.simulation.plan import Regrant, Scope, instance
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


def _thief(aim: Aim) -> None:
    """A thief in a Gateway asks Cores for keys; a grant ends."""
    _narrowed(aim)
    _steal(aim, f"gw-{aim.region}-{int(aim.pick * 2)}")


def _thief_app(aim: Aim) -> None:
    """The same, while an application's key is held."""
    _killed(aim)
    _steal(aim, f"gw-{aim.region}-{int(aim.pick * 2)}")


def _thief_instance(aim: Aim) -> None:
    """The same, while the Gateway's key is held."""
    while (name := instance(aim.plan.members, aim.region, aim.kill.pick))[:2] != "gw":
        aim.kill = replace(aim.kill, pick=aim.source.random())
    aim.plan.kills[:] = [aim.kill]
    _instance(aim)
    _steal(aim, name)


def _steal(aim: Aim, name: str) -> None:
    aim.plan.asks, aim.plan.thief = True, name


APP_FOCI: Final[dict[str, Callable[[Aim], None]]] = {
    "app-killed": _killed,
    "app-late": _late,
    "app-narrowed": _narrowed,
    "app-rotated": _rotated,
    "instance-killed": _instance,
    "thief": _thief,
    "thief-app": _thief_app,
    "thief-instance": _thief_instance,
}
"""By name."""
