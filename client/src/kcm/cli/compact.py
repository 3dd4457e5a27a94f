"""``kcm hold compact``: pages of lifted holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from kcm.cli.holds import hold
from kcm.cli.output import emit, note
from kcm.cli.progress import counting
from kcm.cli.settings import Settings, common, region_option, run_async

if TYPE_CHECKING:
    from kcm.compaction import Compactable

DAY_MS: Final = 86_400_000


@hold.command()
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(0, 36_500),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Only holds that were lifted so long ago.",
)
@click.option("--dry-run", is_flag=True, help="Count what would be paged, and change nothing.")
@region_option
@common
def compact(settings: Settings, days: float, region: str | None, *, dry_run: bool) -> None:
    """Put lifted holds into pages of ids.

    Every lifted hold stays known for ever, so that nobody can bring one back. A page, which you
    sign, says of thousands that they have ended, in 16 bytes each. Each lift is checked here
    before. Needs the role security; once a month is enough. Holds that a root key caused are paged
    by the Cores.

    \b
    Examples:
      kcm hold compact --dry-run
      kcm hold compact --older-than 90
    """  # noqa: D301 - click wants the control character
    found, count = run_async(_compact(settings, days, region, dry_run=dry_run))
    row = {
        "paged": count,
        "can_be_paged": found.count - count,
        "lifted_later": found.young,
        "not_confirmed": found.unsure,
    }
    emit(
        settings,
        row,
        ("paged", "can be paged", "lifted later", "not confirmed"),
        [tuple(row.values())],
    )
    if found.unsure and not settings.json:
        note(settings, "not confirmed: lifts of somebody who is retired; they stay as they are")


async def _compact(
    settings: Settings, days: float, region: str | None, *, dry_run: bool
) -> tuple[Compactable, int]:
    from kcm.compaction import Compaction

    async with settings.kills(region) as (admin, regions, _):
        work = Compaction(admin, regions[0])
        before_ms = settings.around.clock.unix_ms() - int(days * DAY_MS)
        with counting("lifted holds") as shown:
            found = await work.find(before_ms, lambda done: shown(done, 0))
        if dry_run:
            return found, 0
        with counting("paged") as shown:
            return found, await work.write(found, lambda done: shown(done, found.count))
