"""The registry as each Core of a region knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm.cli.error_report import Problem, explain
from kcm.cli.output import emit, note

if TYPE_CHECKING:
    from kcm_schemas.admin.registry import RegistryView

    from kcm._internal.admin import Admin
    from kcm.cli.settings import Settings
    from kcm.errors import ServiceError

SHOW_S: Final = 5.0
"""Seconds for a Core's reply."""

COLUMNS: Final = (
    "core", "region", "baseline", "tenants", "links", "services", "apps", "highest revision",
    "digest",
)  # fmt: skip

SHORT: Final = 16
"""Digits of a digest in a table."""


@dataclass(frozen=True, slots=True)
class Row:
    """The reply of one Core, or the error."""

    core: str
    region: str
    view: RegistryView | None
    error: ServiceError | None = None

    @property
    def refusal(self) -> Problem | None:
        """The Core's refusal, if a retry does not help."""
        if self.error is None or self.error.retryable:
            return None
        report = explain(self.error)
        detail = f"{self.core}: {report.detail}"
        return Problem(report.exit_code, report.code, detail, report.hint)


async def look(settings: Settings, regions: list[str]) -> list[Row]:
    """Ask every Core of these regions; without a name, of all regions."""
    context = settings.context()
    chosen = [context.region(name) for name in regions] or context.in_order(None)
    admin = settings.admin(context)
    try:
        return [row for name in chosen for row in await ask(admin, name, admin.cores(name))]
    finally:
        await admin.close()


async def ask(admin: Admin, region: str, cores: Sequence[str]) -> list[Row]:
    """Ask some Cores of a region at once."""
    import asyncio

    from kcm.errors import ServiceError, Unavailable

    async def one(core: str) -> Row:
        try:
            async with asyncio.timeout(SHOW_S):  # connecting included
                return Row(core, region, await admin.registry(region, core, deadline_s=SHOW_S))
        except TimeoutError:
            return Row(core, region, None, Unavailable("no reply in time"))
        except ServiceError as error:
            return Row(core, region, None, error)

    return list(await asyncio.gather(*map(one, cores)))


def refuse(rows: Sequence[Row]) -> None:
    """Raise the first refusal of a Core, if there is one."""
    if problem := next((row.refusal for row in rows if row.refusal is not None), None):
        raise problem


def tell(settings: Settings, rows: Sequence[Row]) -> None:
    """Show the rows. The reason why a Core does not serve goes to stderr."""
    value = [as_json(row) for row in rows]
    emit(settings, value, COLUMNS, [_cells(row) for row in rows])
    if settings.json:
        return
    for row in rows:
        if row.view is not None and row.view.waits:
            note(settings, f"{row.core}: {row.view.waits}")


def as_json(row: Row) -> Mapping[str, object]:
    """Return a row as an object for JSON."""
    if row.view is None:
        return {"core": row.core, "region": row.region, "error": str(row.error)}
    return {**vars(row.view), "region": row.region}


def _cells(row: Row) -> tuple[object, ...]:
    if row.view is None:
        return row.core, row.region, f"no reply: {row.error}", "", "", "", "", "", ""
    view = row.view
    counts = view.tenants, view.links, view.services, view.apps, view.highest
    digest = view.digest.hex()[:SHORT]
    return row.core, row.region, "yes" if view.baseline else "no", *counts, digest
