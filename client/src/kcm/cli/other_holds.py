"""The other holds on the target of a kill or a lift.

Each hold stays in force until it is lifted itself. So a kill of what is held already gets a hold of
its own, which outlasts the lift of another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm.cli.hold_progress import NAMED_MAX, SHOWN, about, described_briefly
from kcm.cli.output import note

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView

    from kcm._internal.kills import Kills, NewHold
    from kcm.cli.settings import Settings

MORE_S: Final = 0.2
"""Seconds for which the result of a kill waits for the list of holds."""

REMAINING_S: Final = 2.0
"""Seconds to read the list of holds after the result of a lift was shown."""

TOLD_MAX: Final = 100
"""Other holds in the JSON result. ``already_held_count`` counts all of them."""


@dataclass(frozen=True, slots=True)
class OtherHolds:
    """The other holds in force on the target of a hold; ``views`` is ``None`` if no region told."""

    hold: NewHold
    views: Sequence[HoldView] | None

    def told(self, settings: Settings) -> dict[str, object]:
        """Report the holds to people, and return them as fields for JSON."""
        if not settings.json:
            for line in self._lines():
                note(settings, line)
        if self.views is None:
            return {"already_held": None, "already_held_count": None}
        told = [about(view) for view in self.views[:TOLD_MAX]]
        return {"already_held": told, "already_held_count": len(self.views)}

    def _lines(self) -> Iterator[str]:
        on = f"{self.hold.scope} {self.hold.target}"
        if self.views is None:
            yield f"it is not known whether {on} was held already: `kcm hold list` shows the holds"
            return
        count = len(self.views)
        if count:
            holds = "1 other hold stays" if count == 1 else f"{count} other holds stay"
            yield f"{on} was held already: {holds} in force until lifted, as the new one does"
        for view in self.views[:NAMED_MAX]:
            yield described_briefly(view)
        if count > NAMED_MAX:
            yield f"and {count - NAMED_MAX} more: `kcm hold list` shows them"


@asynccontextmanager
async def reading_others(
    kills: Kills, hold: NewHold
) -> AsyncIterator[Callable[[], Awaitable[OtherHolds]]]:
    """Read the other holds on the target of a hold, which is in force already.

    The result is asked for when the watch of the hold has ended.
    """
    async with _reading(kills) as held:

        async def others() -> OtherHolds:
            found = await held(MORE_S)
            if found is None:
                return OtherHolds(hold, None)
            same = [one for one in found if (one.scope, one.target) == (hold.scope, hold.target)]
            return OtherHolds(hold, [one for one in same if one.hold_id != hold.id])

        yield others


async def tell_remaining(settings: Settings, kills: Kills, lifted: Sequence[HoldView]) -> None:
    """Report the targets of lifted holds that other holds keep out of service."""
    async with _reading(kills) as held:
        found = await held(REMAINING_S)
    if found is None:
        text = "it is not known whether other holds are in force: `kcm hold list` shows them"
        note(settings, text, held=None)
    for scope, target in dict.fromkeys((view.scope, view.target) for view in lifted):
        ids = [
            view.hold_id
            for view in found or ()
            if (view.scope, view.target) == (scope, target)
            and view.hold_id not in {one.hold_id for one in lifted}
        ]
        if ids:
            named = ", ".join(one.hex()[:SHOWN] for one in ids[:NAMED_MAX])
            more = f" and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else ""
            text = f"{scope} {target} stays out of service: in force is also hold {named}{more}"
            note(settings, text, scope=scope, target=target, held=ids[:TOLD_MAX])


@asynccontextmanager
async def _reading(
    kills: Kills,
) -> AsyncIterator[Callable[[float], Awaitable[list[HoldView] | None]]]:
    """Read the holds in force. The result is ``None`` if no region told within the given seconds.

    No region can keep a command from its own result.
    """
    import asyncio

    reading = asyncio.create_task(kills.listing())

    async def held(within_s: float) -> list[HoldView] | None:
        done, _ = await asyncio.wait([reading], timeout=within_s)
        if not done or reading.exception() is not None:
            return None
        return [view for view in reading.result() if not view.lifted]

    try:
        yield held
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
