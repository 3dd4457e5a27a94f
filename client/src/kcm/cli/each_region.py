"""The same change in several regions, or one question to one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import click

from kcm.cli import change_summary
from kcm.cli.error_report import Problem, Report, explain, show, together
from kcm.cli.order_state import OrderState
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, run_change
from kcm.cli.similar_names import Scope, suggest
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.tenants import TenantRow

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change

T = TypeVar("T")

NONE: Final[Mapping[Scope, str]] = MappingProxyType({})
"""No names: nothing is suggested."""

revision_option = click.option(
    "--revision",
    type=click.IntRange(1, 2**63 - 1),
    default=1,
    show_default=True,
    help="A number above that of the entry to replace.",
)
"""The revision of a signed entry."""


async def ask_region(
    settings: Settings,
    region: str | None,
    ask: Callable[[Admin, str], Awaitable[T]],
    names: Mapping[Scope, str] = NONE,
) -> T:
    """Ask one region. An error names the region, and a name that is similar to an unknown one."""
    from kcm.errors import ServiceError

    context = settings.context()
    place = context.region(region)
    admin = settings.admin(context)
    try:
        return await ask(admin, place)
    except ServiceError as error:
        report = await suggest(admin, [place], explain(error), names)
        raise Problem.of(together({place: report})[0]) from None
    finally:
        await admin.close()


async def find_tenant(admin: Admin, context: ClientContext, name: str) -> TenantRow:
    """Return a tenant's row from the first region that replies."""
    from kcm._internal.staggered import first
    from kcm.errors import UnknownTenant

    def look(region: str) -> Awaitable[TenantRow]:
        return admin.find(region, name)

    regions = context.in_order(None)
    try:
        return (await first(regions, look))[1]
    except UnknownTenant:
        report = Report(
            Exit.REFUSED,
            "unknown_tenant",
            f"no region that replies has a tenant {name}",
            "`kcm tenant list` shows the tenants; `kcm tenant create` creates one",
        )
        raise Problem.of(await suggest(admin, regions, report, {"tenant": name})) from None


Put = Callable[["Admin", str], Awaitable["Change"]]
"""Sends an entry to a region and returns what that changed there."""

Choose = Callable[["Admin", "ClientContext"], Awaitable[Sequence[str]]]
"""Chooses the regions, including those that the context lacks."""

LACKED: Final = Report(
    Exit.PARTIAL, "not_in_context", "a region of the tenant, not in this context",
    "the same command with a context that has it",
)  # fmt: skip
"""The result of a region that the context does not have."""


def put_everywhere(
    settings: Settings,
    regions: Sequence[str],
    put: Put,
    about: dict[str, str],
    choose: Choose | None = None,
    *,
    shows: str,
    names: Mapping[Scope, str] = NONE,
) -> int:
    """Send an entry to each region, show the results, and return the exit code of the worst one.

    ``shows`` is the command that shows what a region has; ``names`` are those that the regions have
    to know.
    """
    results = run_change(_put_each(settings, regions, put, choose, shows, names))
    failed = {region: one for region, one in results.items() if isinstance(one, Report)}
    done = {region: one for region, one in results.items() if not isinstance(one, Report)}
    rows = [
        {
            **about,
            "region": region,
            "result": one.code if isinstance(one, Report) else "ok",
            "change": "" if isinstance(one, Report) else one,
        }
        for region, one in results.items()
    ]
    emit(settings, rows, tuple(rows[0]), [tuple(row.values()) for row in rows])
    if not failed and (text := change_summary.said(done.values())):
        note(settings, text, changed=False)
    for report in together(failed):
        show(report, as_json=settings.json)
    return min((report.exit_code for report in failed.values()), default=Exit.OK)


async def _put_each(
    settings: Settings,
    regions: Sequence[str],
    put: Put,
    choose: Choose | None,
    shows: str,
    names: Mapping[Scope, str],
) -> dict[str, Report | Change]:
    import asyncio

    context = settings.context()
    settings.leaves("nothing was changed")
    admin = settings.admin(context)

    async def one(region: str) -> Report | Change:
        if region not in context.regions:
            return LACKED
        try:
            await admin.connect(region)
            with standing.asking(region):
                return await put(admin, region)
        except Exception as error:  # noqa: BLE001 - each region has its own result
            return await suggest(admin, [region], explain(error), names)

    try:
        chosen: Sequence[str] = [context.region(region) for region in regions]
        if not chosen:
            chosen = await choose(admin, context) if choose else context.in_order(None)
        standing = OrderState(settings, chosen, shows)
        done = await asyncio.gather(*(one(region) for region in chosen))
        return dict(zip(chosen, done, strict=True))
    finally:
        await admin.close()
