"""A region's results of finished kills: a bucket by compare-and-set, and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kcm_runtime.nats.ports import Entry
from kcm_schemas.codes import Code, KcmError

if TYPE_CHECKING:
    from tests.simulation.plan import Fault
    from tests.simulation.world import World


class SimResults:
    """Implements ``kcm_killswitch.coordinator.result_store.ResultStore``."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self.delay_s = 0.0
        """Seconds that a read or a write takes."""
        self.full = False
        """Whether nothing can be stored."""
        self.down = False
        """Whether nothing can be read, either."""
        self.unheard = 0
        """Writes that will be stored and not acknowledged."""

    def mend(self) -> None:
        """Whatever is wrong is so no more."""
        self.delay_s, self.unheard = 0.0, 0
        self.full = self.down = False

    def lose(self) -> None:
        """Everything is gone."""
        self._entries.clear()

    def sequence(self, hold_id: bytes) -> int:
        """Where the last write of a hold lies; 0: there is none."""
        known = self._entries.get(hold_id)
        return 0 if known is None else known.sequence

    async def read(self, hold_id: bytes) -> Entry | None:
        """What is stored; it is on its way for a while."""
        await self._pass()
        if self.down:
            raise KcmError(Code.UNAVAILABLE)
        found = self._entries.get(hold_id)
        await self._pass()
        return found

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """By compare-and-set."""
        await self._pass()
        if self.down or self.full:
            raise KcmError(Code.UNAVAILABLE)
        self.put(hold_id, raw, expected)
        if self.unheard:
            self.unheard -= 1
            raise KcmError(Code.UNAVAILABLE)
        await self._pass()

    def put(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """Store it, or say that something else is there."""
        if expected != self.sequence(hold_id):
            raise KcmError(Code.CONFLICT)
        self._entries[hold_id] = Entry(expected + 1, "", raw)

    async def _pass(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s / 2)


def slow_results(world: World, fault: Fault) -> None:
    """Every read and write takes a while: Cores that conclude at the same moment overtake another.

    Everywhere: regions conclude at the same moment, too.
    """
    for store in world.results.values():
        store.delay_s = 0.05 + fault.pick / 2


def full_results(world: World, fault: Fault) -> None:
    """A region's bucket takes nothing for a while, or cannot be read, either."""
    store = world.results[fault.region or world.plan.regions[0]]
    store.full, store.down = True, fault.pick < 0.5

    def mended() -> None:
        store.full = store.down = False

    world.loop.after(fault.lasts, mended)


def unheard_result(world: World, fault: Fault) -> None:
    """The next write of a result is not acknowledged."""
    world.results[fault.region or world.plan.regions[0]].unheard += 1


def lost_results(world: World, fault: Fault) -> None:
    """A region's bucket is emptied."""
    region = fault.region or world.plan.regions[0]
    world.results[region].lose()
    world.words.lost(region)
    world.coverage.saw("a bucket of results that is emptied")


RESULTS: Final[dict[str, Callable[[World, Fault], None]]] = {
    "full-results": full_results,
    "lost-results": lost_results,
    "slow-results": slow_results,
    "unheard-result": unheard_result,
}
"""By name."""
