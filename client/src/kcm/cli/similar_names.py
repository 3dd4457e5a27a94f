"""A name that is nearly the one that was given: what somebody may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin

NEAR_S: Final = 1.5
"""Seconds for looking for it: it is a help, and nothing waits longer for it."""

ALIKE: Final = 0.75
"""How alike two names have to be, of 1."""


async def near(
    admin: Admin, regions: Sequence[str], scope: Literal["tenant", "link"], name: str
) -> str:
    """A tenant or link of almost this name, by the first region that answers; or nothing.

    At most three pages of names are read, however many there are: the first one, and those that
    begin like the name.
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
    except Exception:  # noqa: BLE001 - no kill fails for a suggestion
        return ""
    return next(iter(get_close_matches(name, names, 1, ALIKE)), "")
