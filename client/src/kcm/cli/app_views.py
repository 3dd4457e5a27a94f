"""``kcm app list`` and ``kcm app show``."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kcm.cli.each_region import ask_region
from kcm.cli.names import NAME
from kcm.cli.output import emit
from kcm.cli.settings import Settings, common, region_option, run_async

if TYPE_CHECKING:
    from kcm_schemas.admin.apps import AppRow
    from kcm_schemas.app import App

    from kcm._internal.admin import Admin, AppAt


@click.command("list")
@region_option
@common
def list_apps(settings: Settings, region: str | None) -> None:
    """Show the applications of a region, by name.

    Example: kcm app list -o json
    """

    async def ask(admin: Admin, place: str) -> list[AppRow]:
        return await admin.apps(place)

    rows = run_async(ask_region(settings, region, ask))
    columns = ("app", "state", "grants", "regions", "until", "revision", "public key")
    now_ms = settings.around.clock.unix_ms()
    table = [
        (
            row.app,
            _state(row, now_ms, forked=row.forked, held=row.held),
            row.grants,
            " ".join(row.regions),
            _day(row.not_after_ms),
            row.revision,
            row.public_key.hex()[:16],
        )
        for row in rows
    ]
    values = [
        row.model_dump() | {"state": _state(row, now_ms, forked=row.forked, held=row.held)}
        for row in rows
    ]
    emit(settings, values, columns, table)


@click.command("show")
@click.argument("name", type=NAME)
@region_option
@common
def show_app(settings: Settings, name: str, region: str | None) -> None:
    """Show one application as a region has it, with its grants.

    Example: kcm app show shop -o json
    """

    async def ask(admin: Admin, place: str) -> AppAt:
        return await admin.app(place, name)

    found = run_async(ask_region(settings, region, ask, {"app": name}))
    now_ms = settings.around.clock.unix_ms()
    about = {"forked": found.forked, "held": found.held}
    value = found.entry.model_dump() | {
        "region": settings.context().region(region),
        "state": _state(found.entry, now_ms, **about),
        **about,
    }
    emit(settings, value, columns_of(), rows_of(found.entry, now_ms, **about))


def columns_of() -> tuple[str, ...]:
    """Return the columns of one application."""
    return ("app", "state", "grant", "regions", "until", "public key")


def rows_of(
    entry: App, now_ms: int, *, forked: bool = False, held: bool = False
) -> list[tuple[str, ...]]:
    """Return a row for each grant of an application."""
    from kcm._internal import app_entries

    state = _state(entry, now_ms, forked=forked, held=held)
    about = (" ".join(entry.regions), _day(entry.not_after_ms), entry.public_key.hex())
    grants = [app_entries.written(one) for one in entry.grants] or [""]
    return [(entry.app, state, one, *about) for one in grants]


def _state(entry: App | AppRow, now_ms: int, *, forked: bool, held: bool) -> str:
    if entry.revoked:
        return "revoked"
    if held:
        return "held"
    if forked:
        return "forked"
    if now_ms >= entry.not_after_ms:
        return "expired"
    return "plain" if entry.plain else "valid"


def _day(ms: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
    return str(ms)
