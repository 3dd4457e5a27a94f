"""``kcm tenant``: the customers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import click

from kcm.cli import change_summary
from kcm.cli.each_region import ask_region, find_tenant, put_everywhere, revision_option
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, note
from kcm.cli.progress import counting
from kcm.cli.settings import Settings, common, region_option, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.tenants import TenantRow, TenantView

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change
    from kcm.errors import Conflict

TABLE_ROWS: Final = 1000
"""Rows of a table without ``--limit``. JSON, for programs, has all rows."""

COLUMNS: Final = (
    "tenant", "state", "core", "region", "regions", "region_quorum", "link", "services", "holds",
)  # fmt: skip
"""Of a table of tenants; ``core`` is the Core that replied."""


@click.group()
def tenant() -> None:
    """Create, change and show the customers."""


@tenant.command("create")
@click.argument("name", type=NAME)
@click.option("--link", "link_name", type=NAME, required=True, help="The link of its root key.")
@click.option(
    "--region", "regions", multiple=True, help="A region of it (repeatable) [default: all]."
)
@click.option(
    "--region-quorum",
    type=click.Choice(["all", "majority", "local"]),
    default="all",
    show_default=True,
    help="The other regions whose peer leases a region needs to serve the tenant.",
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

    about, shows = {"tenant": name}, f"kcm tenant show {name}"
    return put_everywhere(settings, regions, put, about, shows=shows, names={"link": link_name})


async def _taken(
    admin: Admin, region: str, name: str, link: str, revision: int, error: Conflict
) -> Exception:
    """Return the error for a region that has another entry of the tenant, with what to do."""
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
        hint = "another operator changed it at the same time: try again"
    return Problem(Exit.REFUSED, error.code.value, error.detail, hint)


@tenant.command("relink")
@click.argument("name", type=NAME)
@click.option("--link", "link_name", type=NAME, required=True, help="The link of its new root key.")
@common
def relink(settings: Settings, name: str, link_name: str) -> int:
    """Move a tenant to another root key, in all of its regions.

    Exit code 4 if this context lacks one of them; the tenant keeps the old root key there.

    A Core unwraps the tenant root with the old root key and wraps it with the new one. Only this
    outer layer changes. A region uses the old root key until it has the new entry, and only the new
    one from then on. If the command ends early, give it again.

    Example: kcm tenant relink acme --link acme-new
    """
    from kcm._internal import statements

    found: dict[str, TenantRow] = {}

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        view = await find_tenant(admin, context, name)
        served = [region for region in view.regions if region in context.regions]
        found.update({region: await admin.find(region, name) for region in served})
        return view.regions

    async def put(admin: Admin, region: str) -> Change:
        highest = max(one.revision for one in found.values())
        newest = [one for one in found.values() if one.revision == highest]
        view = newest[0]
        # After an earlier attempt, some regions have the new entry: the others get the same one.
        # A region with another entry of that revision accepts only a higher revision.
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
    return put_everywhere(
        settings, (), put, about, choose, shows=f"kcm tenant show {name}", names={"link": link_name}
    )


@tenant.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=None,
    help=f"Show at most so many [default: {TABLE_ROWS} in a table, all as JSON].",
)
@region_option
@common
def list_tenants(settings: Settings, limit: int | None, region: str | None) -> None:
    """Show the tenants of a region, by name.

    Each row has the number of services and holds; `kcm tenant show` lists them.

    The state `killed` is the same on every Core. `open` and `closed` are of the Core that replied
    (column `core`): whether it has the tenant's keys in memory. A closed tenant is served, too.

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

    Shows its holds, its services and the versions of their keys. The state `open` or `closed` is of
    the Core that replied, as in `kcm tenant list`.

    Example: kcm tenant show acme --region us-east
    """

    async def ask(admin: Admin, place: str) -> TenantView:
        with counting("services") as on_page:
            return await admin.tenant(place, name, on_page=on_page)

    view = run_async(ask_region(settings, region, ask, {"tenant": name}))
    value = view.model_dump(exclude={"total", "more"})
    services = " ".join(f"{item.service}/{item.l3_version}" for item in view.services)
    emit(settings, value, COLUMNS, [(*_about(view), services, len(view.holds))])


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
