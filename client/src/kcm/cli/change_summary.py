"""What a signed entry changed in a region, by comparison with the entry before.

This is information only: another operator may have changed the entry in between. If the comparison
fails, the order does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin

LOOK_S: Final = 2.0
"""Seconds to read the entry before. A Core has it in memory."""

Change = Literal["created", "replaced", "revision", "unchanged", "not known"]
"""``revision``: only the revision and the signer changed."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Before:
    """A region's entry before the order; no ``fields`` if there was none.

    ``known`` is false if the region did not reply.
    """

    known: bool
    revision: int = 0
    fields: Fields | None = None

    def change(self, revision: int, **fields: Any) -> Change:
        """Return what an accepted entry with these fields changed."""
        if not self.known:
            return "not known"
        if self.fields is None:
            return "created"
        if any(self.fields[name] != value for name, value in fields.items()):
            return "replaced"
        return "unchanged" if self.revision == revision else "revision"


async def of_tenant(admin: Admin, region: str, name: str) -> Before:
    """Return a region's entry of a tenant."""
    from kcm.errors import UnknownTenant

    async def ask() -> Before:
        try:
            row = await admin.find(region, name)
        except UnknownTenant:
            return Before(known=True)
        fields = {
            "link": row.link,
            "regions": sorted(row.regions),
            "region_quorum": row.region_quorum,
        }
        return Before(True, row.revision, fields)

    return await _looked(ask)


async def of_link(admin: Admin, region: str, name: str) -> Before:
    """Return a region's entry of a link."""
    from kcm._internal.pages import just_before

    async def ask() -> Before:
        rows = await admin.links(region, limit=1, after=just_before(name))
        if [row.link for row in rows] != [name]:
            return Before(known=True)
        return Before(True, rows[0].revision, {"uri": rows[0].uri, "model": rows[0].model})

    return await _looked(ask)


async def of_service(admin: Admin, region: str, tenant: str, name: str) -> Before:
    """Return a region's entry of a service."""
    from kcm._internal.pages import just_before

    async def ask() -> Before:
        rows = await admin.services(region, tenant, limit=1, after=just_before(name))
        if [row.service for row in rows] != [name]:
            return Before(known=True)
        return Before(True, rows[0].revision, {})

    return await _looked(ask)


async def of_roster(admin: Admin, region: str) -> Before:
    """Return the roster of a region."""

    async def ask() -> Before:
        return Before(True, 0, {"raw": (await admin.roster(region)).roster})

    return await _looked(ask)


async def _looked(ask: Callable[[], Awaitable[Before]]) -> Before:
    import asyncio

    try:
        async with asyncio.timeout(LOOK_S):
            return await ask()
    except Exception:  # noqa: BLE001 - the order reports the same fault
        return Before(known=False)


def said(changes: Iterable[str]) -> str:
    """Return a text if an order changed nothing, or only revisions; else an empty one."""
    kinds = set(changes)
    if kinds == {"unchanged"}:
        return "nothing was changed: the regions have all of this already"
    if kinds and kinds <= {"unchanged", "revision"}:
        return "only the revision was changed: the regions have the rest already"
    return ""
