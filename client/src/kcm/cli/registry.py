"""``kcm registry``: what each Core knows of tenants, links and services, and adopting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kcm.cli import registry_adoption
from kcm.cli.core_registries import Row, look, refuse, tell
from kcm.cli.output import note
from kcm.cli.settings import Settings, common, once, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.registry import RegistryView


@click.group()
def registry() -> None:
    """What each Core knows of a region's registry, and adopting it.

    The registry has the region's tenants, links and services. A Core without memory of it serves
    nothing until another Core that has knows the same, or until you adopt what it knows.
    """


@registry.command("show")
@click.option("--region", metavar="REGION", help="This region alone [default: all].", **once)
@common
def show(settings: Settings, region: str | None) -> int:
    """Show what each Core knows, and whether it has memory.

    Two Cores with the same digest know the same. Exit code 6 when a Core has no memory or does not
    answer, 5 when none answers, 3 when they refuse to.
    """
    rows = run_async(look(settings, [] if region is None else [region]))
    tell(settings, rows)
    for name in dict.fromkeys(row.region for row in rows):
        _next(settings, name, [row.view for row in rows if row.region == name])
    return _whole(rows)


@registry.command("adopt")
@click.option(
    "--region", metavar="REGION", required=True, help="The region whose Cores adopt.", **once
)
@click.option(
    "--core", metavar="CORE", help="Adopt what this Core knows, where Cores differ.", **once
)
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
    return registry_adoption.adopt(settings, region, core, without, yes=yes)


def _next(settings: Settings, region: str, said: list[RegistryView | None]) -> None:
    """Name the next command where no Core of a region has memory."""
    views = [view for view in said if view is not None]
    if not views or any(view.memory for view in views):
        return
    text = f"no Core of region {region} that answers has memory"
    hint = (
        "start one that has, or look whether that is all and adopt it: "
        f"`kcm registry adopt --region {region}`"
    )
    note(settings, f"{text}: {hint}", region=region, warning=text, hint=hint)


def _whole(rows: list[Row]) -> int:
    views = [row.view for row in rows if row.view is not None]
    if not views:
        refuse(rows)
        return Exit.UNAVAILABLE
    whole = len(views) == len(rows) and all(view.memory for view in views)
    return Exit.OK if whole else Exit.NOT_COMPLETE
