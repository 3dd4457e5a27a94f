"""What Cores tell of finished kills: once a result is concluded, its words never change.

Concluded is what is told as stored. In a region the words of a hold stay what they were, whichever
of its Cores is asked. Where a bucket lost them, an incarnation that told them tells no new ones;
who began later may conclude anew, and then two are about until everybody tells one of them. Where a
lift that counted for some does not any more, and where a control stream went back, a result by
another roster is another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kcm_schemas.admin.kill_status import Concluded, HoldStatus
from kcm_schemas.codes import KcmError

if TYPE_CHECKING:
    from tests.simulation.core import SimCore
    from tests.simulation.world import World

ASKED_S: Final = 60.0
"""Seconds after everything was mended in which every result has to be stored."""

RARELY: Final = 10
"""How many times longer nobody is asked once a result was told."""

Text = tuple[Concluded, str]
Key = tuple[str, bytes, int]
"""Region, hold, and where it matters the roster of the result."""


@dataclass(slots=True)
class _Said:
    """The words of one hold in one region: the different ones, in the order of their first time."""

    texts: list[Text] = field(default_factory=list)
    by: dict[tuple[str, bytes], Text] = field(default_factory=dict)
    """What each incarnation told last."""
    lost: bool = False
    """Whether the bucket lost them since the first ones."""


class Words:
    """Hears everything that Cores tell, asks them, and breaks invariant 9."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._said: Final[dict[Key, _Said]] = {}
        self._set_back: Final[set[str]] = set()
        """Regions whose control stream went back."""

    def told(self, core: SimCore, status: HoldStatus) -> None:
        """A Core tells how a hold stands."""
        one = status.concluded
        if one is None or status.unstored:
            return
        self._world.coverage.saw("a result that is told once more")
        region, incarnation = core.who.region, (core.who.name, core.incarnation)
        said = self._said.setdefault(self._key(region, status.hold_id, one.roster), _Said())
        text = (one, repr(status.incarnations))
        if said.texts and text != said.texts[-1]:
            self._changed(core, status.hold_id, said, text)
        if text in said.texts:
            said.texts.remove(text)
        said.texts.append(text)
        said.by[incarnation] = text

    def lost(self, region: str) -> None:
        """A region's bucket lost its results."""
        for (where, _, _), said in self._said.items():
            said.lost |= where == region

    def went_back(self, region: str) -> None:
        """A region's control stream went back."""
        self._set_back.add(region)

    def ask(self) -> None:
        """Ask two Cores at the same moment of a kill, again and again, rarely once it is told."""
        world, plan = self._world, self._world.plan
        wait = plan.asks_s
        ready = [one for region in plan.regions for one in world.cores(region) if one.ready]
        holds = [one for one in world.oracle.holds.values() if one.durable]
        if ready and holds:
            hold = world.random.choice(holds)
            known = any(key[1] == hold.hold_id for key in self._said)
            wait *= RARELY if known else 1
            for core in world.random.sample(ready, min(len(ready), 2)):
                world.loop.spawn(core.node, self._once(core, hold.hold_id))
        world.loop.after(wait, self.ask)

    async def settled(self) -> None:
        """When all is mended every Core of a region tells the same, and has it stored."""
        world = self._world
        until = world.loop.now + ASKED_S
        while wrong := [one async for one in self._differing()]:
            if world.loop.now > until:
                world.oracle.never_healed(9, "; ".join(wrong[:5]))
                return
            await asyncio.sleep(1)

    async def _differing(self) -> Iterator[str]:  # type: ignore[misc]
        world = self._world
        for hold_id in sorted({key[1] for key in self._said}):
            for region in world.plan.regions:
                told = set()
                for core in world.cores(region):
                    status = await world.loop.spawn(core.node, self._once(core, hold_id))
                    if status is None or status.unstored:
                        yield f"{core.who.name} has no result of {hold_id.hex()[:8]}"
                    elif status.concluded is not None:
                        told.add((status.concluded.model_dump_json(), repr(status.incarnations)))
                if len(told) > 1:
                    yield f"{region} tells {len(told)} results of {hold_id.hex()[:8]}"

    async def _once(self, core: SimCore, hold_id: bytes) -> HoldStatus | None:
        try:
            status = await core.kills.status(hold_id)
        except KcmError:
            return None
        self.told(core, status)
        return status

    def _key(self, region: str, hold_id: bytes, roster: int) -> Key:
        loose = self._world.oracle.holds[hold_id].void or region in self._set_back
        return region, hold_id, roster if loose else 0

    def _changed(self, core: SimCore, hold_id: bytes, said: _Said, text: Text) -> None:
        """Other words than the last ones: an incarnation that told some tells none that are new."""
        before = said.by.get((core.who.name, core.incarnation))
        if said.lost and (before is None or text in said.texts):
            self._world.coverage.saw("a result that is concluded anew")
            return
        last = said.texts[-1][0]
        name = hold_id.hex()[:8]
        self._world.oracle.never_healed(
            9,
            f"{core.who.name} says that {text[0].instance} concluded hold {name} at "
            f"{text[0].concluded_ms}; it was {last.instance} at {last.concluded_ms}",
        )
