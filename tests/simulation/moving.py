"""Foci in which tenants move to another link while somebody is kept from hearing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.simulation.network import Weather
from tests.simulation.stream import Store

if TYPE_CHECKING:
    from tests.simulation.aim import Aim


def _calm(aim: Aim) -> None:
    """The registry can change, and nothing goes wrong but this; a link is killed."""
    aim.plan.change_registry()
    aim.plan.weather, aim.plan.store = Weather(), Store()
    aim.plan.faults.clear()
    aim.only(replace(aim.kill, scope="link", lift_after=None, region_pick=0.0))
    aim.plan.lasts = max(aim.plan.lasts, aim.kill.at + 25)
    aim.plan.rates[aim.kill.operator] = 1.0  # whose clock says when it is time


def _late(aim: Aim) -> None:
    """A link is killed just after a tenant came to it, of which Gateways hear nothing."""
    aim.alone()
    _calm(aim)
    aim.relink(aim.source.uniform(0.1, 1.6))
    aim.add("registry-late-gateways", 3.0, 2 * aim.timing.control_lease_s + 8)


def _late_side(aim: Aim) -> None:
    """The same, and one side of Cores hears nothing of it either."""
    aim.alone()
    _calm(aim)
    aim.relink(aim.source.uniform(0.05, 1.2))
    aim.add("registry-late-gateways", 3.0, 2 * aim.timing.control_lease_s + 8)
    aim.add("registry-late-side", 3.0, 2 * aim.timing.control_lease_s + 8)


def _set_back(aim: Aim) -> None:
    """An old record is put back, and Gateways begin anew; then the link is killed that counts."""
    aim.alone()
    _calm(aim)
    aim.relink(15.0)
    what = ("registry-older", "registry-back", "registry-emptied")
    aim.add(aim.source.choice(what), aim.source.uniform(0.6, 2.5), 0.0)
    aim.add("crash-gateways", aim.source.uniform(0.3, 0.6), 0.3)


def _restarted(aim: Aim) -> None:
    """A bucket is set back, and everybody begins anew: the second store alone knows what counts."""
    aim.alone()
    _calm(aim)
    aim.relink(15.0)
    aim.add(aim.source.choice(("registry-back", "registry-emptied")), 1.0, 0.0)
    aim.add("crash-cores", 0.99, 0.5)
    aim.add("crash-gateways", 0.98, aim.source.choice((0.3, 4.0)))


def _moved(aim: Aim) -> None:
    """A tenant moves, and is served by its new link alone."""
    aim.alone()
    _calm(aim)
    aim.kill_later(45.0)
    aim.relink(30.0)


def _refused(aim: Aim) -> None:
    """The bucket has a record that was signed, and refused."""
    aim.alone()
    _calm(aim)
    aim.kill_later(45.0)
    aim.relink(35.0)
    aim.add("registry-refused", 20.0, 0.0)


def _all_lost(aim: Aim) -> None:
    """Bucket and second store are set back, and the Cores begin anew with what their disks have."""
    aim.alone()
    _calm(aim)
    aim.relink(15.0)
    aim.add("registry-lost", 1.0, 0.0)
    aim.add("crash-side", 0.9, 0.5)
    aim.add("crash-cores", 0.8, 0.5)


def _all_forgotten(aim: Aim) -> None:
    """Bucket and second store are set back while every Core gets a new disk."""
    aim.alone()
    _calm(aim)
    aim.relink(15.0)
    aim.add("registry-forgotten", 1.1, aim.source.choice((0.3, 0.6)))
    aim.add("registry-lost", 1.0, 0.0)
    if aim.source.random() < 0.5:
        aim.add("crash-gateways", 0.9, 0.3)


def _forked(aim: Aim) -> None:
    """Two Cores accept different records of one revision, and one of the two links is killed."""
    aim.alone()
    _calm(aim)
    aim.relink(15.0)
    aim.add("registry-fork", aim.source.uniform(0.5, 8.0), 0.0)
    if aim.source.random() < 0.5:
        aim.add("registry-late-gateways", 10.0, 2 * aim.timing.control_lease_s + 8)
    if aim.source.random() < 0.5:  # one side never hears of the first one
        aim.add("registry-late-side", 16.0, 2 * aim.timing.control_lease_s + 8)
        aim.add("registry-fork", 14.99 - 0.03 * aim.source.random(), 0.0)


def _gone_core(aim: Aim) -> None:
    """The one Core accepts a record, shows it, and is gone; a Gateway heard of nothing but that."""
    aim.alone()
    _calm(aim)
    plan = aim.plan
    plan.members = [one for one in plan.members if one.name[-2:] == "-0"]
    lease = aim.timing.control_lease_s
    aim.kill_later(40.0)
    aim.relink(25.0)
    aim.add("registry-late-gateways", 28.0, 5 * lease)
    aim.add("crash-cores", 24.5, 2 * lease + 3)


def _away(aim: Aim) -> None:
    """Gateways are cut off until every lease has ended; then their registry comes later still."""
    aim.alone()
    _calm(aim)
    until = aim.timing.incarnation_bound_s(aim.timing.control_lease_s) + 3
    aim.relink(4.0)
    aim.add("cut-gateways", 5.0, 5.0 + until)
    aim.add("registry-late-gateways", 5.0, 5.0 + until + 6)
    aim.plan.lasts = max(aim.plan.lasts, aim.kill.at + until + 10)


def _unshown(aim: Aim) -> None:
    """The same, and it is gone at the very moment at which it says that it accepted the record."""
    _gone_core(aim)
    aim.plan.faults[:] = [one for one in aim.plan.faults if one.kind != "crash-cores"]
    aim.add("registry-gone-core", 26.0, 2 * aim.timing.control_lease_s + 5)


MOVING: Final[dict[str, Callable[[Aim], None]]] = {
    "moved-away": _away,
    "moved-late": _late,
    "moved-late-side": _late_side,
    "moved-on": _moved,
    "moved-refused": _refused,
    "moved-restarted": _restarted,
    "moved-set-back": _set_back,
    "moved-unshown": _unshown,
    "moved-lost": _all_lost,
    "moved-fork": _forked,
    "moved-forgotten": _all_forgotten,
    "moved-gone-core": _gone_core,
}
"""By name."""
