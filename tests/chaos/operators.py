"""The operators of a run: they kill and lift by command, and look at what holds there are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from kcm import Admin, ClientContext
from kcm._internal.kills import Kills, NewHold
from kcm_schemas.admin.holds import HoldView
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Scope

from tests.chaos.history import History, Kill
from tests.chaos.traffic import CLOCK

LOOK_S = 1.5
"""Seconds between two looks at the holds that keys caused."""

ASK_S = 4.0
LIFT_S = 30.0


class Operators:
    """Everything that is signed in an operator's name. One set of connections for all."""

    def __init__(
        self, admin: Admin, context: ClientContext, history: History, tell: Callable[[str], None]
    ) -> None:
        self._admin = admin
        self._regions = list(context.regions)
        self._history = history
        self._tell = tell

    async def kill(
        self, scope: Scope, target: str, region: str, lasts: float, *, alone: bool = False
    ) -> None:
        """Kill, watch until it is complete or the time is over, then lift.

        The kill goes through ``region``, and through others where that is slow, unless ``alone``.
        """
        now = CLOCK.elapsed()
        until = now + lasts
        kills = Kills(self._admin, [region]) if alone else self._kills(region)
        hold = kills.make(scope, target, "chaos")
        kill = Kill(hold.id.hex(), scope, target, "operator", requested=now, region=region)
        self._history.kills[kill.hold_id] = kill
        try:
            await self._place_and_watch(kills, hold, kill, until)
        except KcmError as error:
            self._tell(f"kill {kill.hold_id[:8]} of {target}: {error.code.value}")
        await asyncio.sleep(max(0.0, until - CLOCK.elapsed()))
        await self.lift(kill)

    async def _place_and_watch(self, kills: Kills, hold: NewHold, kill: Kill, until: float) -> None:
        self._learn(kill, await kills.place(hold, until))
        async for status in kills.watch(hold.id, until, hold):
            self._learn(kill, status)
        if kill.complete is not None:
            seconds = kill.complete - kill.requested
            self._tell(f"kill {kill.hold_id[:8]} of {kill.target} complete after {seconds:.3f} s")

    async def lift(self, kill: Kill) -> None:
        """Lift one hold, as far as anybody answers: what stays is lifted at the end."""
        if kill.held_until is None:
            kill.held_until = CLOCK.elapsed()
        kills = self._kills(kill.region or self._regions[0])
        began = CLOCK.elapsed()
        try:
            await kills.lift(bytes.fromhex(kill.hold_id), "chaos", began + LIFT_S)
        except KcmError as error:
            said = error.code.value
        else:
            said = "done"
        seconds = CLOCK.elapsed() - began
        self._tell(f"lift {kill.hold_id[:8]} of {kill.target}: {said} after {seconds:.3f} s")

    async def look(self) -> None:
        """Note, for ever, the holds that keys caused, and when each was surely still in force."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(KcmError):
                await self.note_holds(await self._kills(self._regions[0]).listing(everything=True))

    async def note_holds(self, listing: list[HoldView]) -> None:
        """Note the holds of a listing; of those in force, how far they are."""
        for view in listing:
            if view.cause != "l1":
                continue
            kill = self._history.kills.setdefault(
                view.hold_id.hex(),
                Kill(
                    view.hold_id.hex(), view.scope, view.target, "l1", view.issued_ms,
                    requested=CLOCK.elapsed(), region=view.origin, held_until=0.0,
                ),
            )  # fmt: skip
            if view.lifted:
                ago_s = time.time() - view.lifted_ms / 1000  # every process has the same wall clock
                kill.lifted_at = min(kill.lifted_at, CLOCK.elapsed() - ago_s)
                kill.held_until = min(kill.held_until or 0.0, kill.lifted_at)
            else:
                asked = CLOCK.elapsed()
                with contextlib.suppress(KcmError):
                    status = await self._kills(view.origin).status(view.hold_id, asked + ASK_S)
                    self._learn(kill, status)
                    if not status.lifted:
                        kill.held_until = min(asked, kill.lifted_at)

    async def held(self, region: str) -> dict[str, bool]:
        """The holds that a region knows, and whether each is lifted; raises ``KcmError``."""
        listing = await Kills(self._admin, [region]).listing(everything=True)
        await self.note_holds(listing)
        return {view.hold_id.hex(): view.lifted for view in listing}

    async def lift_all(self) -> None:
        """Lift every operator's hold that any region still has; raises ``KcmError``."""
        for region in self._regions:
            for view in await Kills(self._admin, [region]).listing():
                if view.cause == "operator":
                    kill = self._history.kills[view.hold_id.hex()]
                    await self.lift(kill)

    def _kills(self, region: str) -> Kills:
        return Kills(self._admin, [region, *(r for r in self._regions if r != region)])

    def _learn(self, kill: Kill, status: HoldStatus) -> None:
        now = CLOCK.elapsed()
        for region in status.regions:
            if region.durable_at > 0:
                kill.durable.setdefault(region.region, now)
        if status.complete and not status.lifted and kill.complete is None:
            kill.complete = now
