"""``kcm registry``: what each Core knows of tenants, links and services, and adopting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from kcm.cli.exits import Exit
from kcm.cli.output import emit, note
from kcm.cli.problems import Problem
from kcm.cli.settings import Settings, common, run_async

if TYPE_CHECKING:
    from kcm_schemas.admin import RegistryView

    from kcm.admin import Admin
    from kcm.errors import ServiceError

SHOW_S: Final = 5.0
"""Seconds that a Core gets to say what it knows."""

COLUMNS: Final = (
    "core", "region", "memory", "tenants", "links", "services", "highest revision", "digest",
)  # fmt: skip

SHORT: Final = 16
"""Digits of a digest in a table."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What one Core said, or why it did not."""

    core: str
    region: str
    view: RegistryView | None
    error: str = ""


@click.group()
def registry() -> None:
    """What each Core knows of a region's registry, and adopting it.

    The registry has the region's tenants, links and services. A Core without memory of it serves
    nothing until another Core that has knows the same, or until you adopt what it knows.
    """


@registry.command("show")
@click.option("--region", metavar="REGION", help="This region alone [default: all].")
@common
def show(settings: Settings, region: str | None) -> int:
    """Show what each Core knows, and whether it has memory.

    Two Cores with the same digest know the same. Exit code 6 when a Core has no memory or does not
    answer, 5 when none answers.
    """
    rows = run_async(_look(settings, [] if region is None else [region]))
    _tell(settings, rows)
    return _whole(rows)


@registry.command("adopt")
@click.option("--region", metavar="REGION", required=True, help="The region whose Cores adopt.")
@click.option("--core", metavar="CORE", help="Adopt what this Core knows, where Cores differ.")
@click.option(
    "--without",
    multiple=True,
    metavar="CORE",
    help="Do not wait for the word of this Core: its disk is lost (repeatable).",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def adopt(
    settings: Settings, region: str, core: str | None, without: tuple[str, ...], *, yes: bool
) -> int:
    """Let a region's Cores serve the registry that they know.

    Only where no Core of the region has memory: the disks of all of them are new, or the region was
    restored. A record that is missing or older here than it once was serves the wrong tenants, by
    the wrong keys. Compare the numbers with what you know; restore the second key store first.

    A Core that does not answer may have memory. Start it, or name it with --without.

    \b
    Examples:
      kcm registry adopt --region eu-de
      kcm registry adopt --region eu-de --without core-eu-de-2
    """  # noqa: D301 - click wants the control character
    rows = run_async(_look(settings, [region]))
    _tell(settings, rows)
    chosen = _choose(rows, region, core, without)
    if chosen is None:
        note(settings, "every Core that answers has memory: there is nothing to adopt")
        return Exit.OK
    if not yes:
        counts = f"{chosen.tenants} tenants, {chosen.links} links, {chosen.services} services"
        click.confirm(f"Is that all of region {region}: {counts}?", abort=True, err=True)
    view = run_async(_adopt(settings, region, chosen))
    text = f"{view.core} remembers this registry and serves; the other Cores follow by themselves"
    note(settings, text, core=view.core, digest=view.digest, memory=view.memory)
    return Exit.OK


def _whole(rows: list[_Row]) -> int:
    views = [row.view for row in rows if row.view is not None]
    if not views:
        return Exit.UNAVAILABLE
    whole = len(views) == len(rows) and all(view.memory for view in views)
    return Exit.OK if whole else Exit.NOT_COMPLETE


async def _look(settings: Settings, regions: list[str]) -> list[_Row]:
    """What every Core of these regions says; none: of all regions."""
    context = settings.context()
    chosen = [context.region(name) for name in regions] or context.in_order(None)
    admin = settings.admin(context)
    try:
        return [row for name in chosen for row in await _ask(admin, name)]
    finally:
        await admin.close()


async def _ask(admin: Admin, region: str) -> list[_Row]:
    """What all Cores of a region say, asked at once."""
    import asyncio

    from kcm.errors import ServiceError

    async def one(core: str) -> _Row:
        try:
            return _Row(core, region, await admin.registry(region, core, deadline_s=SHOW_S))
        except ServiceError as error:
            return _Row(core, region, None, str(error))

    return list(await asyncio.gather(*map(one, admin.cores(region))))


def _tell(settings: Settings, rows: list[_Row]) -> None:
    value = [_as_json(row) for row in rows]
    emit(settings, value, COLUMNS, [_cells(row) for row in rows])
    if settings.json:
        return
    for row in rows:
        if row.view is not None and row.view.waits:
            note(settings, f"{row.core}: {row.view.waits}")


def _as_json(row: _Row) -> Mapping[str, object]:
    if row.view is None:
        return {"core": row.core, "region": row.region, "error": row.error}
    return {**vars(row.view), "region": row.region}


def _cells(row: _Row) -> tuple[object, ...]:
    if row.view is None:
        return row.core, row.region, f"no answer: {row.error}", "", "", "", "", ""
    view = row.view
    counts = view.tenants, view.links, view.services, view.highest
    digest = view.digest.hex()[:SHORT]
    return row.core, row.region, "yes" if view.memory else "no", *counts, digest


async def _adopt(settings: Settings, region: str, chosen: RegistryView) -> RegistryView:
    from kcm.errors import ServiceError

    admin = settings.admin(settings.context())
    try:
        return await admin.adopt(region, chosen.core, chosen.digest)
    except ServiceError as error:
        raise _refused(error, region) from None
    finally:
        await admin.close()


def _choose(
    rows: list[_Row], region: str, core: str | None, without: Sequence[str]
) -> RegistryView | None:
    """The view that is to be adopted; ``None`` when every Core that answers has memory."""
    for name in (*without, *([] if core is None else [core])):
        if name not in [row.core for row in rows]:
            raise Problem(Exit.USAGE, "usage", f"region {region} has no Core {name} that acts")
    if core in without:
        raise Problem(Exit.USAGE, "usage", f"{core} is named with --core and with --without")
    views = [row.view for row in rows if row.view is not None]
    if not views:
        raise Problem(
            Exit.UNAVAILABLE, "unavailable", f"no Core of region {region} answers",
            "start one, and look with `kcm registry show`",
        )  # fmt: skip
    if all(view.memory for view in views):
        return None
    if silent := [row.core for row in rows if row.view is None and row.core not in without]:
        raise _silent(silent)
    empty = [view for view in views if not view.memory and core in (None, view.core)]
    if len({view.digest for view in empty}) > 1:
        raise Problem(
            Exit.REFUSED, "conflict", f"the Cores of region {region} do not know the same",
            "look again in a moment, or name the one that is right with --core",
        )  # fmt: skip
    return empty[0] if empty else None


def _silent(cores: Sequence[str]) -> Problem:
    """Cores that may remember what nobody else knows."""
    one = len(cores) == 1
    verb, it = ("does not answer", "it") if one else ("do not answer", "them")
    options = " ".join(f"--without {core}" for core in cores)
    return Problem(
        Exit.UNAVAILABLE, "unavailable", f"{', '.join(cores)} {verb} and may have memory",
        f"start {it}, or name {it} with {options}",
    )  # fmt: skip


def _refused(error: ServiceError, region: str) -> Problem:
    code = Exit.UNAVAILABLE if error.retryable else Exit.REFUSED
    return Problem(
        code, error.code, error.detail, f"look again with `kcm registry show --region {region}`"
    )
