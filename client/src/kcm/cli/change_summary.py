"""What a signed record changed in a region, told by what that had before.

A look, and no promise: somebody else may have changed it in between. No order fails for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin

LOOK_S: Final = 2.0
"""Seconds for the look: what is there is in a Core's memory."""

Change = Literal["created", "replaced", "revision", "unchanged", "not known"]
"""``revision``: nothing but the revision, and who signed it."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Before:
    """What a region had under a name: nothing, or these fields; ``known``: whether it said so."""

    known: bool
    revision: int = 0
    fields: Fields | None = None

    def change(self, revision: int, **fields: Any) -> Change:
        """What becomes of it by a record that the region took."""
        if not self.known:
            return "not known"
        if self.fields is None:
            return "created"
        if any(self.fields[name] != value for name, value in fields.items()):
            return "replaced"
        return "unchanged" if self.revision == revision else "revision"


async def of_tenant(admin: Admin, region: str, name: str) -> Before:
    """A tenant that a region has."""
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
    """A link that a region has."""
    from kcm._internal.pages import just_before

    async def ask() -> Before:
        rows = await admin.links(region, limit=1, after=just_before(name))
        if [row.link for row in rows] != [name]:
            return Before(known=True)
        return Before(True, rows[0].revision, {"uri": rows[0].uri, "model": rows[0].model})

    return await _looked(ask)


async def of_service(admin: Admin, region: str, tenant: str, name: str) -> Before:
    """A service that a region has."""
    from kcm._internal.pages import just_before

    async def ask() -> Before:
        rows = await admin.services(region, tenant, limit=1, after=just_before(name))
        if [row.service for row in rows] != [name]:
            return Before(known=True)
        return Before(True, rows[0].revision, {})

    return await _looked(ask)


async def of_roster(admin: Admin, region: str) -> Before:
    """The roster that a region has."""

    async def ask() -> Before:
        return Before(True, 0, {"raw": (await admin.roster(region)).roster})

    return await _looked(ask)


async def _looked(ask: Callable[[], Awaitable[Before]]) -> Before:
    import asyncio

    try:
        async with asyncio.timeout(LOOK_S):
            return await ask()
    except Exception:  # noqa: BLE001 - whatever keeps a look from its end is told by the order
        return Before(known=False)


def said(changes: Iterable[str]) -> str:
    """What is said where an order left every region as it was, or nearly; else nothing."""
    kinds = set(changes)
    if kinds == {"unchanged"}:
        return "nothing was changed: all of this is there already"
    if kinds and kinds <= {"unchanged", "revision"}:
        return "nothing was changed but the revision: all else is there already"
    return ""
