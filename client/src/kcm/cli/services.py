"""``kcm service``: the services of a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kcm.cli import change_summary
from kcm.cli.each_region import ask_region, find_tenant, put_everywhere, revision_option
from kcm.cli.names import NAME
from kcm.cli.output import emit
from kcm.cli.settings import Settings, common, region_option, run_async

if TYPE_CHECKING:
    from kcm_schemas.admin.tenants import ServiceRow

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change


@click.group()
def service() -> None:
    """Create and show the services of a tenant."""


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

    It gets a key in each of the tenant's regions. The same command again changes nothing.

    Example: kcm service create acme payroll
    """
    from kcm._internal import statements

    async def put(admin: Admin, region: str) -> Change:
        before = await change_summary.of_service(admin, region, tenant_name, name)
        raw = statements.service(admin.identity, tenant_name, name, revision=revision)
        await admin.put(region, "service", raw)
        return before.change(revision)

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        return (await find_tenant(admin, context, tenant_name)).regions

    about, shows = {"tenant": tenant_name, "service": name}, f"kcm service list {tenant_name}"
    return put_everywhere(settings, regions, put, about, choose, shows=shows)


@service.command("list")
@click.argument("tenant_name", metavar="TENANT", type=NAME)
@region_option
@common
def list_services(settings: Settings, tenant_name: str, region: str | None) -> None:
    """Show the services of a tenant, by name.

    No key is read. `kcm tenant show` has the versions of the keys.

    Example: kcm service list acme -o json
    """

    async def ask(admin: Admin, place: str) -> list[ServiceRow]:
        return await admin.services(place, tenant_name)

    rows = run_async(ask_region(settings, region, ask, {"tenant": tenant_name}))
    columns = ("tenant", "service", "revision")
    emit(settings, rows, columns, [(row.tenant, row.service, row.revision) for row in rows])
