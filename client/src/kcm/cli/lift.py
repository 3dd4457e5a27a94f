"""``kcm lift``: end holds, named by their ids or by the tenant that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kcm.cli.closing_holds import closing
from kcm.cli.error_report import Problem, explain
from kcm.cli.hold_progress import present, verdict
from kcm.cli.holds import find, tell_who_answered
from kcm.cli.kill import SHOWN, Waiting
from kcm.cli.names import NAME
from kcm.cli.output import emit, moment, note
from kcm.cli.settings import (
    Settings,
    at_a_terminal,
    common,
    first_region_option,
    run_async,
    run_change,
)
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView
    from kcm_schemas.admin.kill_status import HoldStatus

    from kcm._internal.kills import Kills


@click.command()
@click.argument("hold_ids", metavar="[HOLD_ID]...", nargs=-1)
@click.option(
    "--tenant", metavar="TENANT", type=NAME, help="All holds on this tenant, in place of ids."
)
@click.option("--yes", is_flag=True, help="With --tenant: do not ask.")
@click.option("--reason", required=True, help="Kept with the lift, for whoever asks later.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to wait until all of it is stored.",
)
@first_region_option
@common
def lift(
    settings: Settings,
    hold_ids: tuple[str, ...],
    tenant: str | None,
    reason: str,
    timeout: float,
    region: str | None,
    *,
    yes: bool,
) -> int:
    """End holds. An id may be shortened.

    With --tenant those on the tenant itself are shown, and lifted when you confirm it. A hold on
    its root key is on other tenants, too: it is named, and ends by its id only.

    A hold of cause l1 also ends by itself, when the root key has answered for a while. Lifted
    before, it comes back when the key refuses again.

    A tenant is open again when no hold is left and its root key answers.

    Exit code 0 means that every region has every lift; 6 that they are stored, but not every region
    has confirmed them: the others get them from those that have them; 5 that no region has
    confirmed a lift.

    \b
    Examples:
      kcm lift 5d41402a --reason "contract renewed"
      kcm lift --tenant acme --reason "contract renewed"
    """  # noqa: D301 - click wants the control character
    if bool(hold_ids) == (tenant is not None):
        raise click.UsageError("name HOLD_IDs, or a tenant with --tenant, and not both")
    if yes and tenant is None:
        raise click.UsageError("--yes is for --tenant: what is named by its id is not asked for")
    if tenant is None:
        views = run_async(_named(settings, hold_ids, region))
    else:
        views = _of_tenant(settings, tenant, region, yes=yes)
    alone = tenant is None and len(hold_ids) == 1
    return run_change(_lift_all(settings, views, reason, timeout, region, alone=alone))


async def _named(settings: Settings, ids: Sequence[str], region: str | None) -> list[HoldView]:
    """The holds of these ids, each once; nothing is lifted where one of them is wrong."""
    async with settings.kills(region) as (_, __, kills):
        found = [await find(kills, one) for one in ids]
    return list({view.hold_id: view for view in found}.values())


def _of_tenant(settings: Settings, tenant: str, region: str | None, *, yes: bool) -> list[HoldView]:
    """The holds on a tenant that somebody wants to lift; none where there are none."""
    if not yes and not at_a_terminal():
        raise Problem(
            Exit.USAGE, "usage", "nobody can be asked here whether to lift them: give --yes",
            "nothing was changed; `kcm hold list` shows the holds",
        )  # fmt: skip
    views, others = run_async(_look(settings, tenant, region))
    for view in (*views, *others):
        text = f"hold {_short(view)} on {view.scope} {view.target}, since "
        text += (
            f"{moment(view.issued_ms)} by {view.issuer}, cause {view.cause}: {view.reason or '-'}"
        )
        note(settings, text, hold_id=view.hold_id, scope=view.scope, target=view.target)
    for view in others:
        text = f"hold {_short(view)} on the root key {view.target} stays, and keeps {tenant} "
        text += f"closed: `kcm lift {_short(view)} --reason TEXT` opens all tenants of that key"
        note(settings, text, hold_id=view.hold_id, stays=True)
    if not views:
        note(settings, f"no hold is on the tenant {tenant} itself: nothing was changed", lifted=[])
    elif not yes and not click.confirm(f"Lift {len(views)} of tenant {tenant}?", err=True):
        note(settings, "nothing was changed", lifted=[])
        return []
    return views


async def _look(
    settings: Settings, tenant: str, region: str | None
) -> tuple[list[HoldView], list[HoldView]]:
    """The holds in force on a tenant, and those on its root key; refuses an unknown name."""
    async with settings.kills(region) as (admin, regions, kills):
        found = await closing(admin, regions, kills, tenant)
        tell_who_answered(settings, regions[0], found.answered)
    return found.own, found.of_root_key


async def _lift_all(
    settings: Settings,
    views: Sequence[HoldView],
    reason: str,
    timeout: float,  # noqa: ASYNC109 - of the whole command, not of one call
    region: str | None,
    *,
    alone: bool,
) -> int:
    """Lift one hold after the other; what came of each is shown, although a later one fails."""
    statuses: list[HoldStatus] = []
    settings.leaves("nothing was lifted")
    async with settings.kills(region) as (_, __, kills):
        until = settings.around.until(timeout)
        try:
            for view in views:
                if not view.lifted:
                    hint = f"`kcm hold show {view.hold_id.hex()}` says whether it is lifted"
                    settings.leaves(_lifted_until_now(views, len(statuses), view), hint)
                status = await _lift(settings, kills, view, reason, until)
                statuses.append(status)  # one by one: those before a failure are kept
                settings.leaves(_lifted_until_now(views, len(statuses)))
        except Exception as error:
            if alone:
                raise
            report = explain(error)
            left = ", ".join(_short(view) for view in views[len(statuses) :])
            detail = f"{len(statuses)} of {len(views)} lifted, not {left}: {report.detail}"
            raise Problem(report.exit_code, report.code, detail, report.hint) from None
        finally:
            if alone and statuses:
                present(settings, statuses[0])
            elif not alone:
                _show(settings, statuses)
    for view, status in zip(views, statuses, strict=True):
        _tell(settings, view, status, alone=alone)
    return Exit.OK if all(map(_done, views, statuses)) else Exit.NOT_COMPLETE


def _lifted_until_now(
    views: Sequence[HoldView], done: int, under_way: HoldView | None = None
) -> str:
    """What is known of lifts when they are interrupted."""
    parts = [("lifted", views[:done])]
    if under_way is not None:
        parts += [("not known of", [under_way])]
        done += 1
    parts += [("not lifted", views[done:])]
    told = [(what, ", ".join(view.hold_id.hex() for view in some)) for what, some in parts if some]
    return "; ".join(f"{what}: {ids}" for what, ids in told)


async def _lift(
    settings: Settings, kills: Kills, view: HoldView, reason: str, until: float
) -> HoldStatus:
    """How the hold stands now. One that is lifted is only looked at."""
    if view.lifted:
        # Another lift would take the place of the first one in what is told of the hold.
        return await kills.status(view.hold_id, until)
    with Waiting(settings, "the lift", until) as waiting:
        return await kills.lift(view.hold_id, reason, until, waiting.failed)


def _show(settings: Settings, statuses: Sequence[HoldStatus]) -> None:
    if not statuses and not settings.json:
        return
    rows = [(one.hold_id.hex()[:SHOWN], f"{one.scope} {one.target}", "lifted") for one in statuses]
    emit(settings, statuses, ("hold", "on", "state"), rows)


def _tell(settings: Settings, view: HoldView, status: HoldStatus, *, alone: bool) -> None:
    text = verdict(status) if alone else f"hold {_short(view)}: {verdict(status)}"
    if view.lifted:
        when = moment(view.lifted_ms)
        text = f"hold {view.hold_id.hex()} was lifted already at {when} by {view.lifted_by}"
    note(
        settings,
        text,
        hold_id=status.hold_id,
        lifted=status.lifted,
        complete=status.complete,
        already=view.lifted,
    )


def _done(view: HoldView, status: HoldStatus) -> bool:
    return status.complete or view.lifted


def _short(view: HoldView) -> str:
    return view.hold_id.hex()[:SHOWN]
