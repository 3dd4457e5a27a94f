"""Suggestions for a mistyped name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin

NEAR_S: Final = 1.5
"""Maximum seconds of the search."""

ALIKE: Final = 0.75
"""Minimum similarity of two names, between 0 and 1."""


async def near(
    admin: Admin, regions: Sequence[str], scope: Literal["tenant", "link"], name: str
) -> str:
    """Return a tenant or link with a similar name in the first region that replies, or nothing.

    At most three pages of names are read: the first one, and those with the same beginning.
    """
    import asyncio
    from difflib import get_close_matches

    from kcm._internal.pages import ROWS, just_before
    from kcm._internal.staggered import first

    async def page(region: str, after: str) -> list[str]:
        if scope == "tenant":
            rows, _ = await admin.tenants(region, limit=ROWS, after=after)
            return [row.tenant for row in rows]
        return [row.link for row in await admin.links(region, limit=ROWS, after=after)]

    async def ask(region: str) -> list[str]:
        names = await page(region, "")
        if len(names) < ROWS:
            return names
        for begin in {name[:-2], name[: len(name) // 2]} - {""}:
            names += await page(region, just_before(begin))
        return names

    try:
        async with asyncio.timeout(NEAR_S):
            names = (await first(regions, ask))[1]
    except Exception:  # noqa: BLE001 - a missing suggestion must not fail a kill
        return ""
    return next(iter(get_close_matches(name, names, 1, ALIKE)), "")
