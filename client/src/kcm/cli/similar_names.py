"""Suggestions for a mistyped name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.error_report import Report
    from kcm.cli.settings import Settings

NEAR_S: Final = 1.5
"""Maximum seconds of the search."""

ALIKE: Final = 0.75
"""Minimum similarity of two names, between 0 and 1."""


Scope = Literal["tenant", "link", "service", "app"]
"""What a name names."""

SCOPES: Final[Mapping[str, Scope]] = {
    "unknown_tenant": "tenant", "unknown_link": "link", "unknown_service": "service",
    "unknown_app": "app",
}  # fmt: skip
"""What is unknown, by the code of the error."""


async def suggest(
    admin: Admin, regions: Sequence[str], report: Report, names: Mapping[Scope, str]
) -> Report:
    """Add a similar name to the report of an unknown one. ``names`` are those of the command."""
    scope = SCOPES.get(report.code)
    if scope is None or scope not in names:
        return report
    other = await near(admin, regions, scope, names[scope], names.get("tenant", ""))
    return replace(report, hint=f"{report.hint}; did you mean {other}?") if other else report


async def suggest_to_user(
    settings: Settings,
    context: ClientContext,
    region: str,
    report: Report,
    names: Mapping[Scope, str],
) -> Report:
    """Do the same for a request of an application, if the context also has an operator."""
    from kcm._internal.client_context import ContextError

    try:
        admin = settings.admin(context)
    except ContextError:
        return report
    try:
        return await suggest(admin, [region], report, names)
    finally:
        await admin.close()


async def near(
    admin: Admin, regions: Sequence[str], scope: Scope, name: str, tenant: str = ""
) -> str:
    """Return a similar name of the same kind in the first region that replies, or nothing.

    ``tenant`` is that of a service. At most three pages of names are read: the first one, and
    those with the same beginning.
    """
    import asyncio
    from difflib import get_close_matches

    from kcm._internal.pages import ROWS, just_before
    from kcm._internal.staggered import first

    async def page(region: str, after: str) -> list[str]:
        if scope == "tenant":
            rows, _ = await admin.tenants(region, limit=ROWS, after=after)
            return [row.tenant for row in rows]
        if scope == "service":
            services = await admin.services(region, tenant, limit=ROWS, after=after)
            return [row.service for row in services]
        if scope == "app":
            return [row.app for row in await admin.apps(region, limit=ROWS, after=after)]
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
    except Exception:  # noqa: BLE001 - a missing suggestion must not fail a command
        return ""
    if name in names:
        return ""  # something else is wrong with it
    return next(iter(get_close_matches(name, names, 1, ALIKE)), "")
