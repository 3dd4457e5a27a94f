"""``kcm hold``: show the holds and their reasons."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from kcm.cli.closing_holds import closing
from kcm.cli.error_report import Problem
from kcm.cli.hold_progress import SHOWN, about, follow, present, verdict
from kcm.cli.names import NAME
from kcm.cli.output import emit, moment, note, say
from kcm.cli.settings import Settings, common, first_region_option, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView

    from kcm._internal.kills import Kills


@click.group()
def hold() -> None:
    """Show holds: what is revoked, by which signer and why."""


@hold.command("list")
@click.argument("tenant", type=NAME, required=False)
@click.option("--all", "everything", is_flag=True, help="Show lifted holds, too.")
@click.option("--ids", is_flag=True, help="Show only the ids, one per line.")
@first_region_option
@common
def list_holds(
    settings: Settings, tenant: str | None, region: str | None, *, everything: bool, ids: bool
) -> None:
    """Show the holds that are in force, of any cause.

    With TENANT, show only those on this tenant and on its root key. Both lock the tenant.

    `kcm hold show` shows the progress of a hold. --ids prints lines also if stdout is not a
    terminal, and a list with -o json.

    If the region to ask does not reply, another one does, and stderr names it.

    Example: kcm hold list acme --all
    """
    shown = run_async(_list(settings, tenant, region, everything=everything))
    if ids and settings.json_wanted:
        emit(settings, [view.hold_id for view in shown], (), ())
        return
    if ids:
        for view in shown:
            say(f"{view.hold_id.hex()}\n")
        return
    emit(
        settings,
        [{**about(view), "raw": view.raw} for view in shown],
        ("hold", "on", "cause", "by", "since (UTC)", "state", "reason"),
        (
            (
                view.hold_id.hex()[:SHOWN],
                f"{view.scope} {view.target}",
                view.cause,
                view.issuer,
                moment(view.issued_ms),
                f"lifted {moment(view.lifted_ms)} by {view.lifted_by}" if view.lifted else "held",
                view.reason,
            )
            for view in shown
        ),
    )


@hold.command("show")
@click.argument("hold_id")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=0.0,
    help="Seconds to wait until it, or its lift, is complete; exit code 6 if it is not. A hold "
    "that is not lifted is placed again.",
)
@first_region_option
@common
def show(settings: Settings, hold_id: str, wait: float, region: str | None) -> int:
    """Show a hold's signer, time, reason and progress.

    The id may be shortened as long as it remains unique.

    Example: kcm hold show 5d41402a
    """
    return run_async(_show(settings, hold_id, wait, region))


async def _list(
    settings: Settings, tenant: str | None, region: str | None, *, everything: bool
) -> list[HoldView]:
    async with settings.kills(region) as (admin, regions, kills):
        if tenant is None:
            answered, found = await kills.listing_of(everything=everything)
        else:
            on = await closing(admin, regions, kills, tenant, everything=everything)
            answered, found = on.answered, on.own + on.of_root_key
    tell_who_answered(settings, regions[0], answered)
    return found


def tell_who_answered(settings: Settings, asked: str, answered: str) -> None:
    """Name the region whose holds are shown, if another one was asked first."""
    if answered != asked:
        these = f"these are the holds that region {answered} knows"
        text = f"region {asked} did not reply in time: {these}"
        note(settings, text, region=answered, silent=asked)


async def find(kills: Kills, prefix: str) -> HoldView:
    """Return the hold whose id begins with ``prefix``; raises ``Problem`` for a bad prefix."""
    from kcm.errors import Malformed

    try:
        return await kills.find(prefix.lower())
    except Malformed as error:
        hint = "`kcm hold list --all` shows the ids; a unique prefix is enough"
        raise Problem(Exit.USAGE, error.code.value, error.detail, hint) from None


async def _show(settings: Settings, prefix: str, wait: float, region: str | None) -> int:
    from kcm._internal.kills import ASK_S

    async with settings.kills(region) as (_, __, kills):
        view = await find(kills, prefix)
        until = settings.around.until(wait or ASK_S)
        if wait:
            hold = None if view.lifted else kills.placed(view)
            watched = kills.watch(view.hold_id, until, hold, lifts=True, lifted=view.lifted)
            look = partial(kills.find, view.hold_id.hex())
            return await follow(settings, watched, view.hold_id, look, lifts=True)
        status = await kills.status(view.hold_id, until)
    present(settings, status, view)
    if not settings.json:
        note(settings, verdict(status))
    return Exit.OK
