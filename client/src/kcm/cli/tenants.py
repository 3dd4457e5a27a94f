"""Tenants and their services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import click

from kcm.cli import change_summary
from kcm.cli.error_report import Problem, Report, explain, show, together
from kcm.cli.names import NAME
from kcm.cli.order_state import Standing
from kcm.cli.output import emit, note
from kcm.cli.progress import counting
from kcm.cli.settings import Settings, common, region_option, run_async, run_change
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.tenants import ServiceRow, TenantRow, TenantView

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change
    from kcm.errors import Conflict

TABLE_ROWS: Final = 1000
"""Tenants that a table shows unless it is told otherwise: more are for a program, as JSON."""

COLUMNS: Final = (
    "tenant", "state", "core", "region", "regions", "region_quorum", "link", "services", "holds",
)  # fmt: skip
"""Of a table of tenants; ``core`` is the Core that answered."""

T = TypeVar("T")

revision_option = click.option(
    "--revision",
    type=click.IntRange(1, 2**63 - 1),
    default=1,
    show_default=True,
    help="Above the last one to replace a record.",
)


@click.group()
def tenant() -> None:
    """Customers, each with a root key of its own."""


@click.group()
def service() -> None:
    """Services of a tenant, each with a key of its own."""


@tenant.command("create")
@click.argument("name", type=NAME)
@click.option("--link", "link_name", type=NAME, required=True, help="The link of its root key.")
@click.option(
    "--region", "regions", multiple=True, help="Serve it here (repeatable) [default: everywhere]."
)
@click.option(
    "--region-quorum",
    type=click.Choice(["all", "majority", "local"]),
    default="all",
    show_default=True,
    help="Which other regions a region has to hear from to go on serving.",
)
@revision_option
@common
def create(
    settings: Settings,
    name: str,
    link_name: str,
    regions: tuple[str, ...],
    region_quorum: Literal["all", "majority", "local"],
    revision: int,
) -> int:
    """Create a tenant in its regions. The same command again changes nothing.

    `kcm tenant relink` moves a tenant to another root key.

    Example: kcm tenant create acme --link acme-root
    """
    from kcm._internal import statements
    from kcm.errors import Conflict

    served = regions or tuple(settings.context().regions)

    async def put(admin: Admin, region: str) -> Change:
        before = await change_summary.of_tenant(admin, region, name)
        raw = statements.tenant(
            admin.identity,
            name,
            link=link_name,
            regions=served,
            region_quorum=region_quorum,
            revision=revision,
        )
        try:
            await admin.put(region, "tenant", raw)
        except Conflict as error:
            raise await _taken(admin, region, name, link_name, revision, error) from None
        return before.change(
            revision, link=link_name, regions=sorted(set(served)), region_quorum=region_quorum
        )

    return _everywhere(settings, regions, put, {"tenant": name}, shows=f"kcm tenant show {name}")


async def _taken(
    admin: Admin, region: str, name: str, link: str, revision: int, error: Conflict
) -> Exception:
    """What to do where a region has another record of the tenant, by what it has."""
    from kcm.errors import ServiceError

    try:
        there = await admin.find(region, name)
    except ServiceError:
        return error
    if there.link != link:
        hint = f"to move it to another root key: `kcm tenant relink {name} --link {link}`"
    elif there.revision >= revision:
        hint = f"to change it: the same command with --revision {there.revision + 1}"
    else:
        hint = "somebody changed it at the same moment: try again"
    return Problem(Exit.REFUSED, error.code.value, error.detail, hint)


@tenant.command("relink")
@click.argument("name", type=NAME)
@click.option("--link", "link_name", type=NAME, required=True, help="The link of its new root key.")
@common
def relink(settings: Settings, name: str, link_name: str) -> int:
    """Move a tenant to another root key, in all of its regions.

    Exit code 4 when this context lacks one of them: it still has the old key there.

    Only the outer layer of its root is made anew: the old key opens it, the new one wraps it. Until
    a region has the new record the old key opens it there, from then on only the new one does. If
    it ends early, give the same command again.

    Example: kcm tenant relink acme --link acme-new
    """
    from kcm._internal import statements

    found: dict[str, TenantRow] = {}

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        view = await _anywhere(admin, context, name)
        served = [region for region in view.regions if region in context.regions]
        found.update({region: await admin.find(region, name) for region in served})
        return view.regions

    async def put(admin: Admin, region: str) -> Change:
        highest = max(one.revision for one in found.values())
        newest = [one for one in found.values() if one.revision == highest]
        view = newest[0]
        # What moved already has the record: what is left gets the very same. Where a region has
        # another record of that revision, only a higher one takes its place.
        moved = all(
            (one.link, one.regions, one.region_quorum)
            == (link_name, view.regions, view.region_quorum)
            for one in newest
        )
        revision = highest if moved else highest + 1
        raw = statements.tenant(
            admin.identity,
            name,
            link=link_name,
            regions=tuple(view.regions),
            region_quorum=view.region_quorum,
            revision=revision,
        )
        await admin.put(region, "tenant", raw)
        there = found[region]
        same = (there.link, there.revision) == (link_name, revision)
        return "unchanged" if same else "replaced"

    about = {"tenant": name, "link": link_name}
    return _everywhere(settings, (), put, about, choose, shows=f"kcm tenant show {name}")


@service.command("create")
@click.argument("tenant_name", metavar="TENANT", type=NAME)
@click.argument("name", metavar="SERVICE", type=NAME)
@click.option("--region", "regions", multiple=True, help="Only this region (repeatable).")
@revision_option
@common
def create_service(
    settings: Settings, tenant_name: str, name: str, regions: tuple[str, ...], revision: int
) -> int:
    """Create a service of a tenant.

    With a key in each of the tenant's regions. The same command again changes nothing.

    Example: kcm service create acme payroll
    """
    from kcm._internal import statements

    async def put(admin: Admin, region: str) -> Change:
        before = await change_summary.of_service(admin, region, tenant_name, name)
        raw = statements.service(admin.identity, tenant_name, name, revision=revision)
        await admin.put(region, "service", raw)
        return before.change(revision)

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        return (await _anywhere(admin, context, tenant_name)).regions

    about, shows = {"tenant": tenant_name, "service": name}, f"kcm service list {tenant_name}"
    return _everywhere(settings, regions, put, about, choose, shows=shows)


@tenant.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=None,
    help=f"At most so many, by name [default: {TABLE_ROWS} in a table, all as JSON].",
)
@region_option
@common
def list_tenants(settings: Settings, limit: int | None, region: str | None) -> None:
    """Show the tenants of a region, by name.

    With how many services and holds each has: `kcm tenant show` names them.

    The state `killed` is the same for every Core. `open` and `closed` tell of the Core that
    answered (column `core`) alone: whether it has the tenant's keys in memory. A closed tenant is
    served, too.

    Example: kcm tenant list -o json > tenants.json
    """
    if limit is None and not settings.json:
        limit = TABLE_ROWS

    async def ask(admin: Admin, place: str) -> tuple[list[TenantRow], int]:
        with counting("tenants") as on_page:
            return await admin.tenants(place, limit=limit, on_page=on_page)

    rows, total = run_async(ask_region(settings, region, ask))
    emit(settings, rows, COLUMNS, [(*_about(row), row.services, row.holds) for row in rows])
    if len(rows) < total:
        note(
            settings,
            f"{len(rows)} of {total} tenants; --limit {total} shows all",
            shown=len(rows),
            total=total,
        )


@tenant.command("show")
@click.argument("name", type=NAME)
@region_option
@common
def show_tenant(settings: Settings, name: str, region: str | None) -> None:
    """Show one tenant as a region sees it.

    With its holds, its services and the versions of their keys. The state `open` or `closed` tells
    of the Core that answered alone, as in `kcm tenant list`.

    Example: kcm tenant show acme --region us-east
    """

    async def ask(admin: Admin, place: str) -> TenantView:
        with counting("services") as on_page:
            return await admin.tenant(place, name, on_page=on_page)

    view = run_async(ask_region(settings, region, ask))
    value = view.model_dump(exclude={"total", "more"})
    services = " ".join(f"{item.service}/{item.l3_version}" for item in view.services)
    emit(settings, value, COLUMNS, [(*_about(view), services, len(view.holds))])


@service.command("list")
@click.argument("tenant_name", metavar="TENANT", type=NAME)
@region_option
@common
def list_services(settings: Settings, tenant_name: str, region: str | None) -> None:
    """Show the services of a tenant, by name. No key is looked up: see `kcm tenant show`.

    Example: kcm service list acme -o json
    """

    async def ask(admin: Admin, place: str) -> list[ServiceRow]:
        return await admin.services(place, tenant_name)

    rows = run_async(ask_region(settings, region, ask))
    columns = ("tenant", "service", "revision")
    emit(settings, rows, columns, [(row.tenant, row.service, row.revision) for row in rows])


def _about(tenant: TenantRow | TenantView) -> tuple[object, ...]:
    return (
        tenant.tenant,
        tenant.state,
        tenant.core,
        tenant.region,
        " ".join(tenant.regions),
        tenant.region_quorum,
        f"{tenant.link} ({tenant.model})",
    )


async def ask_region(
    settings: Settings, region: str | None, ask: Callable[[Admin, str], Awaitable[T]]
) -> T:
    """Ask one region; what it refuses names it."""
    from kcm.errors import ServiceError

    context = settings.context()
    place = context.region(region)
    admin = settings.admin(context)
    try:
        return await ask(admin, place)
    except ServiceError as error:
        raise Problem.of(together({place: explain(error)})[0]) from None
    finally:
        await admin.close()


async def _anywhere(admin: Admin, context: ClientContext, name: str) -> TenantRow:
    """A tenant as the first region that answers has it."""
    from kcm._internal.staggered import first
    from kcm.errors import UnknownTenant

    def look(region: str) -> Awaitable[TenantRow]:
        return admin.find(region, name)

    try:
        return (await first(context.in_order(None), look))[1]
    except UnknownTenant:
        raise Problem(
            Exit.REFUSED,
            "unknown_tenant",
            f"no region that answers has a tenant {name}",
            "`kcm tenant list` shows the tenants; `kcm tenant create` makes one",
        ) from None


Put = Callable[["Admin", str], Awaitable["Change"]]
"""Gives a region a record, and says what that changed there."""

Choose = Callable[["Admin", "ClientContext"], Awaitable[Sequence[str]]]
"""Chooses the regions, those that the context lacks among them."""

LACKED: Final = Report(
    Exit.PARTIAL, "not_in_context", "a region of the tenant, not in this context",
    "the same command with a context that has it",
)  # fmt: skip
"""What comes of a region that the context does not know how to reach."""


def _everywhere(
    settings: Settings,
    regions: Sequence[str],
    put: Put,
    about: dict[str, str],
    choose: Choose | None = None,
    *,
    shows: str,
) -> int:
    """Do the same in each region, show how it went, and exit as the worst of them.

    ``shows`` is the command that shows what a region has.
    """
    results = run_change(_put_everywhere(settings, regions, put, choose, shows))
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


async def _put_everywhere(
    settings: Settings,
    regions: Sequence[str],
    put: Put,
    choose: Choose | None,
    shows: str,
) -> dict[str, Report | Change]:
    import asyncio

    context = settings.context()
    settings.leaves("nothing was changed")
    admin = settings.admin(context)

    async def one(region: str) -> Report | Change:
        if region not in context.regions:
            return LACKED
        try:
            with standing.asking(region):
                return await put(admin, region)
        except Exception as error:  # noqa: BLE001 - each region has a result of its own
            return explain(error)

    try:
        chosen: Sequence[str] = [context.region(region) for region in regions]
        if not chosen:
            chosen = await choose(admin, context) if choose else context.in_order(None)
        standing = Standing(settings, chosen, shows)
        done = await asyncio.gather(*(one(region) for region in chosen))
        return dict(zip(chosen, done, strict=True))
    finally:
        await admin.close()
