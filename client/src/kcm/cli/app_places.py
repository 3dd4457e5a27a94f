"""Grants for services that no region has: a warning, because a service may be created later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kcm_schemas.app import AppGrant

    from kcm.cli.settings import Settings

LOOK_S: Final = 2.0
"""Seconds for all questions: a missing warning must not fail a command."""

LOOKED_MAX: Final = 16
"""Grants that are looked up; a command has fewer."""


async def unknown_places(settings: Settings, grants: Sequence[AppGrant]) -> list[str]:
    """Return the services (``TENANT/SERVICE``) that the first region that replies does not have."""
    import asyncio

    from kcm._internal.pages import just_before
    from kcm._internal.staggered import first
    from kcm.errors import UnknownTenant

    context = settings.context()
    admin = settings.admin(context)
    exact = [one for one in grants if "*" not in (one.tenant, one.service)][:LOOKED_MAX]

    async def lacks(grant: AppGrant) -> bool:
        async def look(region: str) -> bool:
            after = just_before(grant.service)
            try:
                rows = await admin.services(region, grant.tenant, limit=1, after=after)
            except UnknownTenant:
                return True
            return [row.service for row in rows] != [grant.service]

        return (await first(context.in_order(None), look))[1]

    try:
        async with asyncio.timeout(LOOK_S):
            found = await asyncio.gather(*map(lacks, exact))
    except Exception:  # noqa: BLE001 - it is a warning only
        return []
    finally:
        await admin.close()
    return [f"{one.tenant}/{one.service}" for one, gone in zip(exact, found, strict=True) if gone]
