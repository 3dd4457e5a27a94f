"""Kills while somebody floods the bus, beside kills while nobody does, turn by turn.

The hold is placed as an operator does. From then until the last receipt of any incarnation arrived,
and until a Core says that the kill is complete.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kcm import Admin
from kcm_devsystem.broker_users import visitors_address
from kcm_schemas import subjects
from kcm_schemas.roster import Role
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.bare import connected, written
from benchmarks.kill.living import (
    Helper,
    System,
    helpers,
    make_links,
    make_tenants,
    open_tenants,
    tenant_name,
)
from benchmarks.kill.placing import WAIT_S, Placing
from benchmarks.kill.sample import Figure, spread
from benchmarks.measure import in_turns, percentile

PART: Final = "a kill under a flood"
TARGET: Final = 3.0
"""Times the quiet 99th percentile, at most."""

RISING_S: Final = 0.3
"""Seconds of flood before the kill."""

TENANTS: Final = 2


async def measure(at: System, kills: int) -> list[Figure]:
    """Make and open tenants, then kill one after the other."""
    home = at.regions[0]
    async with Admin.open(at.context) as admin:
        await make_links(at, admin, 1)
        await make_tenants(at, admin, TENANTS, 1)
        await open_tenants(at, TENANTS, 2)
        # Until the Cores have watched their streams for so long, no kill can be complete.
        await asyncio.sleep(at.options.timing.incarnation_bound_s(0))
        signer = next(m.name for m in at.options.members if m.role is Role.CORE)
        settings = {
            "region": home,
            "signer": signer,
            "control": at.control(home).model_dump(mode="json"),
            "data": visitors_address(at.context, at.options.directory, home).model_dump(
                mode="json"
            ),
        }
        async with (
            helpers([("benchmarks.kill.flooder", settings)]) as (flooder,),
            connected(at.control(home)) as bus,
        ):
            incarnations = [m for m in at.options.members if m.role is not Role.AUDITOR]
            rounds = Rounds(Placing(admin, home), bus, flooder, len(incarnations))
            await rounds.listen()
            for number in range(kills):
                for what in in_turns(number, ("quiet", "flood")):
                    await rounds.kill(what, tenant_name(number % TENANTS))
                    await open_tenants(at, TENANTS, 1)
    purged, complete = rounds.purged, rounds.complete
    return [
        *spread(PART, "quiet, hold to the last receipt", purged["quiet"]),
        *spread(PART, "flood, hold to the last receipt", purged["flood"]),
        *spread(PART, "quiet, hold to complete", complete["quiet"]),
        *spread(PART, "flood, hold to complete", complete["flood"]),
        _times("the last receipt", purged),
        _times("complete", complete),
    ]


def _times(name: str, taken: dict[str, list[float]]) -> Figure:
    """How many times as long it takes under the flood, by 99th percentiles."""
    ratio = percentile(taken["flood"], 99) / percentile(taken["quiet"], 99)
    return Figure(PART, f"{name}, p99 under the flood over p99 in quiet", ratio, "times", TARGET)


class Rounds:
    """One kill after another, each lifted again."""

    def __init__(self, placing: Placing, bus: Nats, flooder: Helper, incarnations: int) -> None:
        self._placing: Final = placing
        self._bus: Final = bus
        self._flooder: Final = flooder
        self._incarnations: Final = incarnations
        self._clock: Final = placing.clock
        self._arrived: dict[str, dict[bytes, float]] = {}
        self._more: Final = asyncio.Event()
        self.purged: Final[dict[str, list[float]]] = {"quiet": [], "flood": []}
        self.complete: Final[dict[str, list[float]]] = {"quiet": [], "flood": []}

    async def listen(self) -> None:
        """Note when receipts arrive."""

        async def receive(message: Msg) -> None:
            key = message.subject.rpartition(".")[2]
            if key in self._arrived:
                self._arrived[key].setdefault(message.data, self._clock.elapsed())
                self._more.set()

        await self._bus.subscribe(subjects.receipts(), cb=receive)
        await written(self._bus)

    async def kill(self, what: str, victim: str) -> None:
        """One kill with its lift, with or without a flood around it."""
        if what == "flood":
            await self._flooder.ask(WAIT_S, do="start")
            await asyncio.sleep(RISING_S)
        hold_id, raw = self._placing.hold(victim)
        receipts = self._arrived.setdefault(hold_id.hex(), {})
        started = self._clock.elapsed()
        self.complete[what].append(await self._placing.complete(hold_id, raw))
        async with asyncio.timeout(WAIT_S):
            while len(receipts) < self._incarnations:
                self._more.clear()
                await self._more.wait()
        self.purged[what].append(max(receipts.values()) - started)
        del self._arrived[hold_id.hex()]
        if what == "flood":
            await self._flooder.ask(WAIT_S, do="stop")
        await self._placing.lift(raw)
