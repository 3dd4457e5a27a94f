"""``kcm kill``: revoke everything of a tenant or of a root key, everywhere, and see it done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, Self

import click

from kcm.cli.error_report import Problem, explain, together
from kcm.cli.hold_progress import TELL_S, follow
from kcm.cli.names import NAME
from kcm.cli.output import emit, note
from kcm.cli.settings import (
    Settings,
    common_at_any_cost,
    first_region_option,
    run_async,
    run_change,
)
from kcm.cli.targets import check, find, look, warn
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    import asyncio

    from kcm_schemas.admin.holds import BlastRadius
    from kcm_schemas.admin.kill_status import HoldStatus

    from kcm._internal.kills import Kills, NewHold
    from kcm.errors import ServiceError

SHOWN: Final = 16
"""Hexadecimal digits of a hold's id where it is named: enough to find it by."""

EXISTS_S: Final = 1.5
"""Seconds for the look whether the target exists, where no region says that it does."""

DRY_RUN_S: Final = 5.0
"""Seconds for the same look when nothing else is wanted."""

LOOK_S: Final = 1.0
"""Seconds for a look whether a hold is in force that nobody confirmed in time."""


@click.command()
@click.argument("tenant", type=NAME, required=False)
@click.option(
    "--link", metavar="LINK", type=NAME, help="All tenants of this root key, in place of TENANT."
)
@click.option("--dry-run", is_flag=True, help="Show what it would reach, and change nothing.")
@click.option("--reason", default="", help="Kept with the hold, for whoever asks later.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds to wait for completeness. The hold stands in any case.",
)
@first_region_option
@common_at_any_cost
def kill(
    settings: Settings,
    tenant: str | None,
    link: str | None,
    reason: str,
    timeout: float,
    region: str | None,
    *,
    dry_run: bool,
) -> int:
    """Revoke TENANT everywhere, now.

    Its keys are purged and nothing of it is served until the hold is lifted.

    Exit code 0 means that every instance on record has purged; 6 that the hold stands, but not
    everybody has confirmed within --timeout; 5 that no region has confirmed the hold. Nothing is
    lost: `kcm lift HOLD_ID --reason TEXT` opens it again.

    \b
    Examples:
      kcm kill acme --dry-run
      kcm kill acme --reason "contract ended"
    """  # noqa: D301 - click wants the control character
    if (tenant is None) == (link is None):
        raise click.UsageError("name a TENANT, or a root key with --link, and not both")
    scope: Literal["tenant", "link"] = "tenant" if link is None else "link"
    target = tenant or link or ""
    if dry_run:
        return run_async(_dry_run(settings, region, scope, target))
    settings.leaves("no hold was placed")
    return run_change(_kill(settings, region, scope, target, reason, timeout))


async def _dry_run(
    settings: Settings, region: str | None, scope: Literal["tenant", "link"], target: str
) -> int:
    async with settings.kills(region) as (admin, regions, _):
        known = await look(admin, regions, scope, target, DRY_RUN_S)
        reached = known.reached
        await check(admin, known)
        await warn(settings, admin, known, dry_run=True)
    failed = {place: explain(error) for place, error in known.failed.items()}
    for report in together(failed):
        note(settings, report.detail, regions=report.regions, error=report.code)
    if not reached:
        raise next(iter(known.failed.values()))
    for place, silent in _without_incarnations(reached).items():
        text = f"{place}: {silent} does not say which instances it has; they are reached, too"
        note(settings, text, region=place, silent=silent)
    emit(
        settings,
        reached,
        ("asked in", "tenants", "services", "regions", "instances"),
        (
            (
                place,
                _names(entry),
                entry.services,
                " ".join(entry.regions),
                " ".join(sorted(incarnation.instance for incarnation in entry.incarnations)),
            )
            for place, entry in reached.items()
        ),
    )
    return Exit.UNAVAILABLE if failed else Exit.OK


def _without_incarnations(reached: Mapping[str, BlastRadius]) -> dict[str, str]:
    """By region that was asked, those of which it knows no instance: they are cut off from it."""
    silent = {
        place: sorted(set(one.regions) - {incarnation.region for incarnation in one.incarnations})
        for place, one in reached.items()
    }
    return {place: ", ".join(names) for place, names in silent.items() if names}


def _names(radius: BlastRadius) -> str:
    """The tenants that are named, and how many are not."""
    rest = radius.total - len(radius.tenants)
    return " ".join(radius.tenants) + (f" and {rest} more" if rest else "") or "-"


async def _kill(
    settings: Settings,
    region: str | None,
    scope: Literal["tenant", "link"],
    target: str,
    reason: str,
    timeout: float,  # noqa: ASYNC109 - of the whole command, not of one call
) -> int:
    import asyncio

    async with settings.kills(region) as (admin, regions, kills):
        until = settings.around.until(timeout)
        known = await find(admin, regions, scope, target, EXISTS_S)
        await check(admin, known)
        hold = kills.make(scope, target, reason)
        # Told before it is sent: whoever loses the terminal now can still find and lift it.
        note(settings, f"placing hold {hold.id.hex()} on {scope} {target}", hold_id=hold.id)
        # Beside it: a suggestion may take a second, and no kill waits for it.
        warning = asyncio.create_task(warn(settings, admin, known, dry_run=False))
        try:
            placed = await place(settings, kills, hold, until)
        finally:
            await warning
        return await follow(settings, kills.watch(hold.id, until, hold), hold.id, placed=placed)


class Waiting:
    """Says once, and soon, that no region has confirmed a statement, and for how long it is tried.

    When the first attempt has failed, or when that takes longer than ``TELL_S``.
    """

    def __init__(self, settings: Settings, what: str, until: float) -> None:
        self._settings: Final = settings
        self._what: Final = what
        self._until: Final = until
        self._told = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        import asyncio

        self._timer = asyncio.get_running_loop().call_later(TELL_S, self._tell, "no answer yet")
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def failed(self, error: ServiceError) -> None:
        """An attempt failed, and will be made again."""
        self._tell(error.detail)

    def _tell(self, why: str) -> None:
        if self._told:
            return
        self._told = True
        left = max(0, round(self._until - self._settings.around.clock.elapsed()))
        text = f"no region has confirmed {self._what} yet: {why}; trying for another {left} s"
        note(self._settings, text, confirmed=False, why=why, seconds_left=left)


async def place(settings: Settings, kills: Kills, hold: NewHold, until: float) -> HoldStatus:
    """Place a hold, and say what to do when nobody confirms it; how it stood when somebody did."""
    from kcm.errors import ServiceError

    what = f"the hold {hold.id.hex()} on {hold.scope} {hold.target}"
    look = f"`kcm hold show {hold.id.hex()}"
    settings.leaves(f"it is not known whether {what} is in force", f"{look}` says so")
    try:
        with Waiting(settings, "the hold", until) as waiting:
            placed = await kills.place(hold, until, waiting.failed)
    except ServiceError as error:
        if not error.retryable:
            raise
        # An answer may have been lost, or have come too late: what is in force is to be told.
        if status := await _found(settings, kills, hold):
            placed = status
        else:
            raise Problem(
                Exit.UNAVAILABLE,
                error.code.value,
                f"no region confirmed the hold {hold.id.hex()}: {error.detail}",
                "is the system running? The hold may be in force: look with "
                f"`kcm hold show {hold.id.hex()[:SHOWN]}`; killing again does no harm",
            ) from None
    settings.leaves(f"{what} is in force", f"{look} --wait 60` goes on watching")
    return placed


async def _found(settings: Settings, kills: Kills, hold: NewHold) -> HoldStatus | None:
    """How a hold stands that a region has stored; none where nobody says that one has."""
    from kcm.errors import ServiceError

    try:
        status = await kills.status(hold.id, settings.around.until(LOOK_S))
    except ServiceError:
        return None
    return status if any(one.durable_at for one in status.regions) else None
