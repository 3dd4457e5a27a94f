"""Which Cores of the regions serve. Each Core is asked by name, as in `kcm registry show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kcm.cli.core_registries import ask

if TYPE_CHECKING:
    from kcm._internal.admin import Admin

LACKED: Final = "on the roster, not in this context"
"""The state of a region that cannot be asked, because the context does not have it."""


@dataclass(frozen=True, slots=True)
class CoreState:
    """The Cores of a region that serve, and the reasons why the others on the roster do not."""

    serving: list[str] = field(default_factory=list)
    not_serving: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether the region has a Core, and all of them serve."""
        return bool(self.serving) and not self.not_serving

    @property
    def text(self) -> str:
        """The state as a cell of a table."""
        total = len(self.serving) + len(self.not_serving)
        return f"{len(self.serving)} of {total}" if total else "none on the roster"


async def serving(admin: Admin, regions: Sequence[str]) -> dict[str, CoreState]:
    """Ask the Cores of these regions at once; add regions on the roster that the context lacks."""
    import asyncio

    from kcm.ops.roster_changes import lacked

    async def one(region: str) -> CoreState:
        found = CoreState()
        for row in await ask(admin, region, admin.cores(region)):
            if row.view is None:
                found.not_serving[row.core] = f"no reply: {row.error}"
            elif not row.view.baseline:
                found.not_serving[row.core] = f"no baseline of its registry: {row.view.waits}"
            else:
                found.serving.append(row.core)
        return found

    told = dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))
    for region in lacked(admin.context, admin.verifier.roster):
        told[region] = CoreState([], dict.fromkeys(admin.cores(region), LACKED))
    return told
