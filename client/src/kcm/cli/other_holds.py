"""The holds that were on the target of a kill before it.

Each of them stays in force until it is lifted, as the new one does. The kill still gets a hold of
its own, because that outlasts the lift of another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm.cli.hold_progress import NAMED_MAX, about, described_briefly
from kcm.cli.output import note

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView

    from kcm._internal.kills import Kills, NewHold
    from kcm.cli.settings import Settings

READ_S: Final = 2.0
"""Seconds to read the holds, after the new one is in force."""


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
        views = None if self.views is None else [about(view) for view in self.views]
        return {"already_held": views}

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


async def read_others(kills: Kills, hold: NewHold) -> OtherHolds:
    """Read the other holds on the target of a hold, for ``READ_S`` at most."""
    import asyncio

    from kcm.errors import ServiceError

    try:
        async with asyncio.timeout(READ_S):
            found = await kills.listing()
    except (TimeoutError, ServiceError):
        return OtherHolds(hold, None)
    same = [view for view in found if (view.scope, view.target) == (hold.scope, hold.target)]
    return OtherHolds(hold, [view for view in same if view.hold_id != hold.id])
