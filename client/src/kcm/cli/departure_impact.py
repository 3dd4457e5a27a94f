"""What stops counting when a retired signer's statement is left out: tenants and holds.

The number of requests to the regions is bounded, because one page can lift hundreds of holds, and a
signer can have thousands of lifts. The text says what was not looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView
    from kcm_schemas.control import Scope

    from kcm._internal.admin import Admin
    from kcm.ops.roster_changes import Found

LOOKS_MAX: Final = 64
"""Requests to the regions for one retirement."""

LOOK_S: Final = 4.0
"""Maximum seconds of one request."""

NAMED_MAX: Final = 8
"""Names in one text."""


async def darkened(admin: Admin, name: str, found: Sequence[Found]) -> list[Found]:
    """Describe for each statement that is left out what stops counting."""
    looks = _Looks(admin, name)
    return [one if one.endorsed else replace(one, dark=await looks.of(one)) for one in found]


class _Looks:
    """Asks a region that has the statement, with ``LOOKS_MAX`` requests in all."""

    def __init__(self, admin: Admin, name: str) -> None:
        self._admin: Final = admin
        self._name: Final = name
        self._left = LOOKS_MAX
        self._reached: dict[tuple[str, str], str] = {}

    async def of(self, one: Found) -> str:
        """Return in one line what stops counting."""
        region = one.regions[0]
        match one.what.removeprefix("accepted ").split(" "):
            case ["lift", hold]:
                return await self._lift(region, hold)
            case ["lifts", origin, prefix, "of", count, *_]:
                return await self._page(region, origin, bytes.fromhex(prefix), count)
            case ["tenant" | "root-keys", tenant]:
                return f"tenant {tenant}"
            case ["service" | "service-keys", tenant, service]:
                return f"service {service} of tenant {tenant}"
            case ["link", link]:
                return await self._reach(region, "link", link)
            case _:
                return "unknown to this version of the command"

    async def _lift(self, region: str, hold: str) -> str:
        """Describe a hold that is in force again."""
        from kcm.errors import ServiceError

        if not self._may_ask():
            return f"its hold is in force again: `kcm hold show {hold}` shows the target"
        try:
            views = (await self._admin.matching_holds(region, hold)).holds
        except ServiceError as error:
            return f"its hold is in force again; its target is not known: {error.detail}"
        if len(views) != 1:
            return "its hold is in force again; no region knows its target"
        view = views[0]
        named = view.scope in ("tenant", "app", "instance")
        reach = "" if named else await self._reach(region, view.scope, view.target)
        on = f"hold on {view.scope} {view.target} is in force again"
        return f"{on}: {reach}" if reach else on

    async def _page(self, region: str, origin: str, prefix: bytes, count: str) -> str:
        """Describe the holds of root keys that one page lifts, by their links."""
        views = [
            one
            for one in await self._beginning(region, prefix)
            if one.lifted_by == self._name and one.origin == origin and one.cause == "l1"
        ]
        links = Counter(view.target for view in views)
        words = ("hold", "id begins", "is") if count == "1" else ("holds", "ids begin", "are")
        holds, begin, are = words
        of = f"{count} {holds} of region {origin}"
        again = f"{of} whose {begin} with {prefix.hex()} {are} in force"
        if not links:
            return f"{again} again; no region knows their links"
        told = [f"{link} ({await self._reach(region, 'link', link)})" for link in _first(links)]
        rest = len(links) - len(told)
        more = f" and {rest} more" if rest else ""
        return f"{again} again, on links {', '.join(told)}{more}"

    async def _beginning(self, region: str, prefix: bytes) -> list[HoldView]:
        """Return the holds, lifted ones too, with this prefix, within the allowed requests."""
        from kcm_schemas import limits

        from kcm.errors import ServiceError

        first = int.from_bytes(prefix + bytes(limits.ID_SIZE - 1)) - 1
        after = max(0, first).to_bytes(limits.ID_SIZE)
        found: list[HoldView] = []
        while self._may_ask():
            try:
                page = await self._admin.holds(region, after, everything=True)
            except ServiceError:
                break
            found += [view for view in page.holds if view.hold_id[:1] == prefix]
            if not page.more or not page.holds or page.holds[-1].hold_id[:1] != prefix:
                break
            after = page.holds[-1].hold_id
        return found

    async def _reach(self, region: str, scope: Scope, on: str) -> str:
        """Describe the tenants of a link or region."""
        from kcm.errors import ServiceError

        if (scope, on) in self._reached:
            return self._reached[scope, on]
        if not self._may_ask():
            return f"the tenants of {scope} {on}"
        try:
            radius = await self._admin.preview(
                region, scope, on, instances=False, deadline_s=LOOK_S
            )
        except ServiceError as error:
            return f"the tenants of {scope} {on}; they are not known: {error.detail}"
        names = radius.tenants[:NAMED_MAX]
        rest = radius.total - len(names)
        more = f" and {rest} more" if rest else ""
        said = f"tenants {', '.join(names)}{more}" if names else f"no tenant is on {scope} {on}"
        self._reached[scope, on] = said
        return said

    def _may_ask(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _first(links: Counter[str]) -> list[str]:
    return sorted(links, key=lambda link: (-links[link], link))[:NAMED_MAX]
