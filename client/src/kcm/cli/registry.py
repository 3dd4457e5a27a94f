"""``kcm registry``: show what each Core knows of tenants, links and services, and adopt it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kcm.cli import registry_adoption
from kcm.cli.core_registries import Row, look, refuse, tell
from kcm.cli.output import advise, note
from kcm.cli.settings import Settings, common, once, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.registry import RegistryView


@click.group()
def registry() -> None:
    """Show and adopt the registry of a region.

    The registry has the region's tenants, links and services. A Core without a baseline of it does
    not serve until a Core with a baseline knows the same registry, or you adopt what it knows.
    """


@registry.command("show")
@click.option("--region", metavar="REGION", help="Only this region [default: all].", **once)
@common
def show(settings: Settings, region: str | None) -> int:
    """Show what each Core knows, and whether it has a baseline.

    Two Cores with the same digest know the same registry. Exit code 6 if a Core has no baseline or
    does not reply, 5 if no Core replies, 3 if they refuse.
    """
    rows = run_async(look(settings, [] if region is None else [region]))
    tell(settings, rows)
    for name in dict.fromkeys(row.region for row in rows):
        _next(settings, name, [row.view for row in rows if row.region == name])
    code = _whole(rows)
    if any(row.view is None for row in rows):
        advise(settings, "start the Cores that do not reply; `kcm region list` shows which serve")
    return code


@registry.command("adopt")
@click.option(
    "--region", metavar="REGION", required=True, help="The region whose Cores adopt.", **once
)
@click.option("--core", metavar="CORE", help="Adopt what this Core knows, if Cores differ.", **once)
@click.option(
    "--without",
    multiple=True,
    metavar="CORE",
    help="Do not wait for this Core, whose disk is lost (repeatable).",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@common
def adopt(
    settings: Settings, region: str, core: str | None, without: tuple[str, ...], *, yes: bool
) -> int:
    """Let a region's Cores serve the registry that they know.

    Use this only if no Core of the region has a baseline: all their disks are new, or the region
    was restored. If an entry is missing or older than before, Cores serve the wrong tenants with
    the wrong keys. Compare the numbers with what you know; restore the second store first.

    A Core that does not reply may have a baseline. Start it, or name it with --without.

    \b
    Examples:
      kcm registry adopt --region eu-de
      kcm registry adopt --region eu-de --without core-eu-de-2
    """  # noqa: D301 - click wants the control character
    return registry_adoption.adopt(settings, region, core, without, yes=yes)


def _next(settings: Settings, region: str, said: list[RegistryView | None]) -> None:
    """Name the next command if no Core of a region has a baseline."""
    views = [view for view in said if view is not None]
    if not views or any(view.baseline for view in views):
        return
    text = f"no Core of region {region} that replies has a baseline"
    hint = (
        "start one that has a baseline, or check that this registry is complete and adopt it: "
        f"`kcm registry adopt --region {region}`"
    )
    note(settings, f"{text}: {hint}", region=region, warning=text, hint=hint)


def _whole(rows: list[Row]) -> int:
    views = [row.view for row in rows if row.view is not None]
    if not views:
        refuse(rows)
        return Exit.UNAVAILABLE
    whole = len(views) == len(rows) and all(view.baseline for view in views)
    return Exit.OK if whole else Exit.NOT_COMPLETE
