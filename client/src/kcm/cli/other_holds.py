"""The holds that were on the target of a kill before it.

Each of them stays in force until it is lifted, as the new one does. The kill still gets a hold of
its own, because that outlasts the lift of another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm.cli.hold_progress import NAMED_MAX, about, described_briefly
from kcm.cli.output import note

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView

    from kcm._internal.kills import Kills, NewHold
    from kcm.cli.settings import Settings

MORE_S: Final = 0.2
"""Seconds to wait for the list of holds after the watch of the new one has ended."""

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

    The result is asked for when the watch of the hold has ended. It waits for ``MORE_S`` at most:
    no region can keep the command from its own result.
    """
    import asyncio

    reading = asyncio.create_task(kills.listing())

    async def others() -> OtherHolds:
        done, _ = await asyncio.wait([reading], timeout=MORE_S)
        if not done or reading.exception() is not None:
            return OtherHolds(hold, None)
        same = [
            view
            for view in reading.result()
            if (view.scope, view.target) == (hold.scope, hold.target) and not view.lifted
        ]
        return OtherHolds(hold, [view for view in same if view.hold_id != hold.id])

    try:
        yield others
    finally:
        reading.cancel()
