"""``kcm l1 status``: how many root keys each Core uses, and how many it can use.

If there are more, the Core unloads tenants. Each Core has its own count, so each is asked by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kcm_schemas.text import counted

from kcm.cli.error_report import explain
from kcm.cli.output import advise, emit, moment, note
from kcm.cli.settings import Settings
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.key_budget import KeyUse

    from kcm._internal.admin import Admin

ANSWER_S: Final = 3.0
"""Seconds for one Core's reply, which comes from memory."""

COLUMNS: Final = (
    "core", "region", "state", "since (UTC)", "keys in use", "unloaded in 10 min",
    "since its start", "the last (UTC)",
)  # fmt: skip

WHAT_TO_DO: Final = "raise probes_per_s, or put tenants on fewer keys (docs/deployment.md)"
"""The remedy for too many root keys."""


async def status(settings: Settings, region: str | None) -> int:
    """Ask every active Core on the roster, show the replies, and warn."""
    context = settings.context()
    regions = context.in_order(None) if region is None else [context.region(region)]
    admin = settings.admin(context)
    try:
        asked = [place for place in _cores(admin) if place[0] in regions]
        found = await _ask(admin, asked)
    finally:
        await admin.close()
    rows = [_row(place, one) for place, one in found.items()]
    emit(settings, rows, COLUMNS, [_cells(row) for row in rows])
    for (place, core), one in found.items():
        if isinstance(one, Exception):
            text = explain(one).detail
            note(settings, f"{core}: no reply: {text}", core=core, region=place, error=text)
        elif warning := warning_of(one):
            note(settings, f"{core}: {warning}", core=core, region=place, warning=warning)
    silent = sum(isinstance(one, Exception) for one in found.values())
    if silent:
        advise(settings, "`kcm region list` shows which Cores serve, and why others do not")
    if silent == len(found):
        return Exit.UNAVAILABLE
    return Exit.PARTIAL if silent else Exit.OK


def warning_of(use: KeyUse) -> str:
    """Return what needs an operator's action; empty if nothing does."""
    are = "is" if use.in_use == 1 else "are"
    said = f"{use.in_use} of {counted(use.most, 'root key')} {are} in use"
    if use.state == "crowded":
        tenants = counted(
            use.unloaded, "tenant with the oldest use was", "tenants with the oldest use were"
        )
        return (
            f"{said}, and {tenants} unloaded within "
            f"10 minutes; their next request loads them again: {WHAT_TO_DO}"
        )
    if use.state == "filling":
        return f"{said}; with more, the Core unloads tenants without requests: {WHAT_TO_DO}"
    return ""


def _cores(admin: Admin) -> list[tuple[str, str]]:
    """Return region and name of every active Core."""
    from kcm_schemas.roster import Role

    return sorted(
        (one.region, one.instance)
        for one in admin.verifier.roster.instances
        if one.role is Role.CORE and one.retired is None
    )


async def _ask(
    admin: Admin, asked: list[tuple[str, str]]
) -> dict[tuple[str, str], KeyUse | Exception]:
    import asyncio

    from kcm.errors import Unavailable

    async def one(region: str, core: str) -> KeyUse | Exception:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await admin.key_use(region, core, deadline_s=ANSWER_S)
        except TimeoutError:
            return Unavailable("no reply in time")
        except Exception as error:  # noqa: BLE001 - each Core has its own result
            return error

    return dict(zip(asked, await asyncio.gather(*(one(*place) for place in asked)), strict=True))


def _row(place: tuple[str, str], use: KeyUse | Exception) -> dict[str, Any]:
    if isinstance(use, Exception):
        return {"core": place[1], "region": place[0], "state": "no reply"}
    return {
        **vars(use),
        "since_utc": moment(use.since_ms) if use.since_ms else None,
        "unloaded_utc": moment(use.unloaded_ms) if use.unloaded_ms else None,
    }


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    about = (row["core"], row["region"], row["state"])
    if "in_use" not in row:
        return (*about, "", "", "", "", "")
    share = 100 * row["in_use"] // max(1, row["most"])
    used = f"{row['in_use']} of {row['most']} ({share} %)"
    since, last = row["since_utc"] or "-", row["unloaded_utc"] or "-"
    return (*about, since, used, row["unloaded"], row["unloaded_all"], last)
