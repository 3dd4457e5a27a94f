"""``kcm lift``: end holds, named by their ids or by their tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kcm.cli.closing_holds import closing
from kcm.cli.error_report import Problem, explain
from kcm.cli.hold_progress import SHOWN, described_briefly, present, verdict
from kcm.cli.holds import find, tell_who_answered
from kcm.cli.kill import KillWait
from kcm.cli.names import NAME, REASON
from kcm.cli.other_holds import tell_remaining
from kcm.cli.output import advise, emit, moment, note
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
@click.option("--reason", type=REASON, required=True, help="A reason that is stored with the lift.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to wait until all lifts are stored.",
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

    With --tenant, the holds on the tenant itself are shown, and lifted after you confirm. A hold on
    its root key affects other tenants, too: it is shown, and can be lifted only by its id.

    A hold of cause l1 also ends by itself after the root key was usable for some time. If you lift
    it earlier, a new one is placed at the next refusal of the key.

    A tenant is served again when no hold is in force and its root key is usable.

    Exit code 0 means that every region has every lift; 6 that the lifts are stored, but not every
    region has confirmed them (the regions forward them to each other); 5 that no region has
    confirmed a lift.

    \b
    Examples:
      kcm lift 5d41402a --reason "contract renewed"
      kcm lift --tenant acme --reason "contract renewed"
    """  # noqa: D301 - click wants the control character
    if bool(hold_ids) == (tenant is not None):
        raise click.UsageError("name either HOLD_IDs or a tenant with --tenant")
    if yes and tenant is None:
        raise click.UsageError("--yes needs --tenant: a hold named by its id needs no confirmation")
    if tenant is None:
        views = run_async(_named(settings, hold_ids, region))
    else:
        views = _of_tenant(settings, tenant, region, yes=yes)
    alone = tenant is None and len(hold_ids) == 1
    return run_change(_lift_all(settings, views, reason, timeout, region, alone=alone))


async def _named(settings: Settings, ids: Sequence[str], region: str | None) -> list[HoldView]:
    """Return the holds of these ids, each once; raises ``Problem`` if one of them is wrong."""
    async with settings.kills(region) as (_, __, kills):
        found = [await find(kills, one) for one in ids]
    return list({view.hold_id: view for view in found}.values())


def _of_tenant(settings: Settings, tenant: str, region: str | None, *, yes: bool) -> list[HoldView]:
    """Return the holds on a tenant that the operator confirms; empty if there are none."""
    if not yes and not at_a_terminal():
        raise Problem(
            Exit.USAGE, "usage", "without a terminal, the lift cannot be confirmed: give --yes",
            "nothing was changed; `kcm hold list` shows the holds",
        )  # fmt: skip
    views, others = run_async(_look(settings, tenant, region))
    for view in (*views, *others):
        text = described_briefly(view)
        note(settings, text, hold_id=view.hold_id, scope=view.scope, target=view.target)
    for view in others:
        text = f"hold {_short(view)} on the root key {view.target} stays and locks {tenant}: "
        text += f"`kcm lift {_short(view)} --reason TEXT` lifts it for all tenants of that key"
        note(settings, text, hold_id=view.hold_id, stays=True)
    if not views:
        note(settings, f"tenant {tenant} itself has no hold: nothing was changed", lifted=[])
    elif not yes and not click.confirm(f"Lift {len(views)} of tenant {tenant}?", err=True):
        note(settings, "nothing was changed", lifted=[])
        return []
    return views


async def _look(
    settings: Settings, tenant: str, region: str | None
) -> tuple[list[HoldView], list[HoldView]]:
    """Return the holds in force on a tenant and on its root key.

    Raises ``Problem`` for an unknown tenant.
    """
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
    """Lift one hold after another. The results are shown also if a later lift fails."""
    statuses: list[HoldStatus] = []
    settings.leaves("nothing was lifted")
    async with settings.kills(region) as (_, __, kills):
        until = settings.around.until(timeout)
        try:
            for view in views:
                if not view.lifted:
                    hint = f"`kcm hold show {view.hold_id.hex()}` shows whether it is lifted"
                    settings.leaves(_lifted_until_now(views, len(statuses), view), hint)
                status = await _lift(settings, kills, view, reason, until)
                statuses.append(status)  # one by one, to keep those before a failure
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
        if views:
            await tell_remaining(settings, kills, views)
    # A region that does not have the lift yet may report that the kill is complete.
    unfinished = [
        one
        for one, status in zip(views, statuses, strict=True)
        if not (status.lifted and status.complete)
    ]
    if not unfinished:
        return Exit.OK
    wait = f"`kcm hold show {_short(unfinished[0])} --wait 60` waits for the other regions"
    advise(settings, wait)
    return Exit.NOT_COMPLETE


def _lifted_until_now(
    views: Sequence[HoldView], done: int, under_way: HoldView | None = None
) -> str:
    """Return the state of the lifts for an interruption."""
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
    """Lift a hold and return its status. If it is lifted already, only return the status."""
    if view.lifted:
        # A second lift would replace the first one in the description of the hold.
        return await kills.status(view.hold_id, until)
    with KillWait(settings, "the lift", until) as waiting:
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
        text += "" if status.complete else f"; {verdict(status)}"
    note(
        settings,
        text,
        hold_id=status.hold_id,
        lifted=status.lifted,
        complete=status.complete,
        already=view.lifted,
    )


def _short(view: HoldView) -> str:
    return view.hold_id.hex()[:SHOWN]
