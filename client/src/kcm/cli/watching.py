"""A hold's table while it fills: who may have held a key, and who has confirmed that it is gone."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from kcm.cli.exits import Exit
from kcm.cli.output import emit, note, table
from kcm.cli.problems import Problem, clean
from kcm.cli.settings import Settings

if TYPE_CHECKING:
    from kcm_schemas.admin import BootStatus, HoldStatus
    from rich.console import RenderableType

COLUMNS: Final = ("region", "instance", "role", "state", "keys purged", "purge", "after")


CANNOT_STORE: Final = "cannot store"
"""Of a Core whose own disk does not take the hold: a power cut would make it forget."""

REGION_STATES: Final = {
    "durable": "stored",
    "watching": "stored; watched too briefly",
    "differing": "stored; its Cores know different tenants",
    "fence-ended": "cut off: its leases ended",
    "unbounded": "cut off: may serve on",
    "waiting": "not heard from",
}


async def follow(settings: Settings, statuses: AsyncIterator[HoldStatus], hold_id: bytes) -> int:
    """Show a hold's table while it fills; 0 only when it is complete or lifted."""
    last: HoldStatus | None = None
    if not settings.json and sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=sys.stdout), auto_refresh=False) as live:
            async for status in statuses:
                live.update(_picture(status), refresh=True)
                last = status
    else:
        async for status in statuses:
            last = status
        if last is not None:
            emit(settings, last, COLUMNS, rows(last))
    if last is None:
        raise Problem(
            Exit.UNAVAILABLE,
            "unavailable",
            f"nobody says how the hold {hold_id.hex()} stands",
            f"it may be in force: `kcm hold show {hold_id.hex()}`",
        )
    if last.complete or last.lifted:
        note(settings, verdict(last), hold_id=hold_id, complete=last.complete, lifted=last.lifted)
        return Exit.OK
    raise Problem(
        Exit.NOT_COMPLETE,
        "not_complete",
        f"the hold stands, but not every instance has confirmed its purge{_troubles(last)}",
        f"`kcm hold show {hold_id.hex()} --wait 60` goes on watching",
    )


def rows(status: HoldStatus) -> list[tuple[object, ...]]:
    """A hold's table: every region, and every instance that may have held a key."""
    table_rows: list[tuple[object, ...]] = []
    for region in sorted(status.regions, key=lambda entry: entry.region):
        stored = REGION_STATES[region.how]
        table_rows.append((region.region, "-", "-", stored, "", "", ""))
        table_rows += [
            (
                boot.region,
                boot.instance,
                boot.role.value,
                _state(boot),
                boot.keys,
                f"{boot.purge_us} µs" if boot.how == "receipt" else "",
                f"{boot.after_ms} ms" if boot.how == "receipt" else "",
            )
            for boot in sorted(status.boots, key=lambda entry: entry.instance)
            if boot.region == region.region
        ]
    return table_rows


def _picture(status: HoldStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(table(COLUMNS, rows(status)), Text(verdict(status)))


def verdict(status: HoldStatus) -> str:
    """How a hold stands, in a line."""
    if status.lifted:
        return "lifted"
    how = [boot.how for boot in status.boots] + [region.how for region in status.regions]
    if status.complete:
        silent = how.count("lease-ended") + how.count("fence-ended")
        if silent:
            return f"complete: {silent} did not answer, and may serve nothing any more"
        return "complete: every instance on record has purged"
    waiting = sum(how.count(one) for one in ("waiting", "watching", "differing", "unbounded"))
    return f"under way: {waiting} have not confirmed yet{_troubles(status)}"


def _troubles(status: HoldStatus) -> str:
    """Which Cores cannot store the hold, and why; empty when all can."""
    return "".join(
        f"; {boot.instance} {CANNOT_STORE}: {clean(boot.trouble)}"
        for boot in status.boots
        if boot.how == "waiting" and boot.trouble
    )


def _state(boot: BootStatus) -> str:
    """What is known of an instance, and what it waits for."""
    if boot.how == "waiting" and boot.trouble:
        return f"waiting: {CANNOT_STORE}: {clean(boot.trouble)}"
    return boot.how
