"""``kcm kill``: revoke a tenant or a root key in all regions, and watch until it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

import click

from kcm.cli.error_report import Problem, explain, show, together
from kcm.cli.hints import hint_of_text
from kcm.cli.hold_progress import SHOWN, TELL_S, follow
from kcm.cli.key_targets import KEY_NAME, Scope, find_key, warn_of_key
from kcm.cli.names import NAME
from kcm.cli.other_holds import reading_others
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

EXISTS_S: Final = 1.5
"""Seconds for the check that the target exists, if no region confirms that it does."""

DRY_RUN_S: Final = 5.0
"""Seconds for the same check in a dry run."""

LOOK_S: Final = 1.0
"""Seconds to check whether a hold without a confirmation is in force."""


@click.command()
@click.argument("tenant", type=NAME, required=False)
@click.option(
    "--link", metavar="LINK", type=NAME, help="All tenants of this root key, in place of TENANT."
)
@click.option(
    "--app",
    "app",
    metavar="NAME[.KEY]",
    type=KEY_NAME,
    help="The key of this application, in its place.",
)
@click.option(
    "--instance",
    metavar="NAME[.KEY]",
    type=KEY_NAME,
    help="The key of this instance, in its place.",
)
@click.option("--dry-run", is_flag=True, help="Show what it would affect, and change nothing.")
@click.option("--reason", default="", help="A reason that is stored with the hold.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds to wait for completeness. The hold remains in force in any case.",
)
@first_region_option
@common_at_any_cost
def kill(  # noqa: PLR0913 - one argument for each option
    settings: Settings,
    tenant: str | None,
    link: str | None,
    app: str | None,
    instance: str | None,
    reason: str,
    timeout: float,
    region: str | None,
    *,
    dry_run: bool,
) -> int:
    """Revoke TENANT everywhere, now.

    All instances purge its keys and refuse its requests until the hold is lifted.

    --app and --instance take one key of an application or an instance out of service, for example
    a stolen one. What it opened is closed, and it opens nothing more; a key that replaces it is not
    held. An instance that still has the key purges everything and serves nothing.

    Exit code 0 means that every registered instance has purged; 6 that the hold is in force, but
    not every instance has confirmed within --timeout; 5 that no region has confirmed the hold. No
    data is lost: `kcm lift HOLD_ID --reason TEXT` ends the hold.

    \b
    Examples:
      kcm kill acme --dry-run
      kcm kill acme --reason "contract ended"
      kcm kill --app shop --reason "its key was stolen"
    """  # noqa: D301 - click wants the control character
    named: dict[Scope, str | None] = {
        "tenant": tenant, "link": link, "app": app, "instance": instance,
    }  # fmt: skip
    given: list[tuple[Scope, str]] = [
        (scope, name) for scope, name in named.items() if name is not None
    ]
    if len(given) != 1:
        raise click.UsageError("name one TENANT, or give one of --link, --app and --instance")
    scope, target = given[0]
    if dry_run:
        return run_async(_dry_run(settings, region, scope, target))
    settings.leaves("no hold was placed")
    return run_change(kill_now(settings, region, scope, target, reason, timeout))


async def _dry_run(settings: Settings, region: str | None, scope: Scope, target: str) -> int:
    async with settings.kills(region) as (admin, regions, _):
        target = await find_key(settings, admin, regions, scope, target, DRY_RUN_S)
        known = await look(admin, regions, scope, target, DRY_RUN_S)
        reached = known.reached
        await check(admin, known)
        await warn(settings, admin, known, dry_run=True)
    failed = {place: explain(error) for place, error in known.failed.items()}
    reports = together(failed)
    if reached or len(reports) > 1:  # a single one is raised below
        for report in reports:
            show(report, as_json=settings.json)
    if not reached:
        raise next(iter(known.failed.values()))
    for place, silent in _without_incarnations(reached).items():
        text = f"{place}: the instances of {silent} are not known; the kill affects them, too"
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
    """By region that replied, the regions without known instances: they are isolated from it."""
    silent = {
        place: sorted(set(one.regions) - {incarnation.region for incarnation in one.incarnations})
        for place, one in reached.items()
    }
    return {place: ", ".join(names) for place, names in silent.items() if names}


def _names(radius: BlastRadius) -> str:
    """Return the named tenants, and how many more there are."""
    rest = radius.total - len(radius.tenants)
    return " ".join(radius.tenants) + (f" and {rest} more" if rest else "") or "-"


async def kill_now(
    settings: Settings,
    region: str | None,
    scope: Scope,
    target: str,
    reason: str,
    timeout: float,  # noqa: ASYNC109 - of the whole command, not of one call
) -> int:
    """Place a hold and watch it; returns the exit code."""
    import asyncio

    async with settings.kills(region) as (admin, regions, kills):
        until = settings.around.until(timeout)
        typed = target
        target = await find_key(settings, admin, regions, scope, target, timeout)
        known = await find(admin, regions, scope, target, min(EXISTS_S, timeout))
        await check(admin, known)
        hold = kills.make(scope, target, reason)
        # Print the id before sending: after a lost terminal, the operator can still find the hold.
        note(settings, f"placing hold {hold.id.hex()} on {scope} {target}", hold_id=hold.id)
        # Concurrently, because a suggestion may take a second and a kill must not wait for it.
        warning = asyncio.gather(
            warn(settings, admin, known, dry_run=False),
            warn_of_key(settings, admin, regions, scope, target if typed == target else ""),
        )
        try:
            placed = await place(settings, kills, hold, until)
        finally:
            await warning
        return await watch(settings, kills, hold, until, placed)


async def watch(
    settings: Settings, kills: Kills, hold: NewHold, until: float, placed: HoldStatus
) -> int:
    """Watch a hold that was just placed, and report the holds that were on its target before."""
    async with reading_others(kills, hold) as others:
        statuses = kills.watch(hold.id, until, hold)
        return await follow(settings, statuses, hold.id, placed=placed, others=others)


class KillWait:
    """Reports once that no region has confirmed a statement, and how long the command retries.

    It does so after the first failed attempt, or after ``TELL_S``.
    """

    def __init__(self, settings: Settings, what: str, until: float) -> None:
        self._settings: Final = settings
        self._what: Final = what
        self._until: Final = until
        self._told = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        import asyncio

        self._timer = asyncio.get_running_loop().call_later(TELL_S, self._tell, "no reply yet")
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def failed(self, error: ServiceError) -> None:
        """Report an attempt that failed and will be repeated."""
        self._tell(error.detail)

    def _tell(self, why: str) -> None:
        if self._told:
            return
        self._told = True
        left = max(0, round(self._until - self._settings.around.clock.elapsed()))
        text = f"no region has confirmed {self._what} yet: {why}; retrying for another {left} s"
        note(self._settings, text, confirmed=False, why=why, seconds_left=left)


async def place(settings: Settings, kills: Kills, hold: NewHold, until: float) -> HoldStatus:
    """Place a hold and return its status; raises ``Problem`` with a hint if no region confirms."""
    from kcm._internal.client_context import NotLetIn
    from kcm.errors import ServiceError

    what = f"the hold {hold.id.hex()} on {hold.scope} {hold.target}"
    look = f"`kcm hold show {hold.id.hex()}"
    settings.leaves(f"it is not known whether {what} is in force", f"{look}` shows it")
    try:
        with KillWait(settings, "the hold", until) as waiting:
            placed = await kills.place(hold, until, waiting.failed)
    except NotLetIn as error:
        text = f"no region confirmed the hold {hold.id.hex()}: {error.detail}"
        raise Problem(Exit.USAGE, "context", text, error.hint) from None
    except ServiceError as error:
        if not error.retryable:
            raise
        # The reply may have been lost or too late: check whether the hold is in force.
        if status := await _found(settings, kills, hold):
            placed = status
        else:
            code = error.code.value
            known = hint_of_text(code, error.detail) or "check that the system runs"
            raise Problem(
                Exit.UNAVAILABLE,
                code,
                f"no region confirmed the hold {hold.id.hex()}: {error.detail}",
                f"{known}. The hold may be in force: see "
                f"`kcm hold show {hold.id.hex()[:SHOWN]}`; killing again does no harm",
            ) from None
    settings.leaves(f"{what} is in force", f"{look} --wait 60` continues to watch")
    return placed


async def _found(settings: Settings, kills: Kills, hold: NewHold) -> HoldStatus | None:
    """Return the status of a hold if a region has stored it, else ``None``."""
    from kcm.errors import ServiceError

    try:
        status = await kills.status(hold.id, settings.around.until(LOOK_S))
    except ServiceError:
        return None
    return status if any(one.durable_at for one in status.regions) else None
