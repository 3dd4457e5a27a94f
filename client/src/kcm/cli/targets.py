"""What the regions know of the target of a kill: the tenants affected, and whether it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from kcm.cli.error_report import Problem
from kcm.cli.key_targets import Scope
from kcm.cli.output import note
from kcm.cli.similar_names import near
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import BlastRadius

    from kcm._internal.admin import Admin
    from kcm.cli.settings import Settings


@dataclass(frozen=True, slots=True)
class Target:
    """A name, and the reply of each region about it.

    ``found`` has by region what a hold would affect, or the failure; ``exists`` is whether it is
    known although no tenant may be on it; ``silent`` are the regions that did not report whether
    they know the name.
    """

    scope: Scope
    name: str
    found: Mapping[str, BlastRadius | Exception]
    exists: bool
    silent: Sequence[str]

    @property
    def reached(self) -> dict[str, BlastRadius]:
        """What a hold would affect, by region that replied."""
        return {
            place: one for place, one in self.found.items() if not isinstance(one, Exception)
        }  # fmt: skip

    @property
    def failed(self) -> dict[str, Exception]:
        """The failures of the other regions."""
        return {place: one for place, one in self.found.items() if isinstance(one, Exception)}

    @property
    def empty(self) -> bool:
        """Whether no region that replied has a tenant that a hold would affect."""
        return not any(one.tenants for one in self.reached.values())

    @property
    def unknown(self) -> bool:
        """Whether no region that replied knows the name."""
        return self.empty and not self.exists


_KEYS: Final = frozenset({"app", "instance"})
"""Scopes whose target is a key, not a name in the registry."""

Said = tuple["BlastRadius | Exception", bool | None]
"""What a hold would affect in a region, or the failure; and whether the region knows the name."""


async def look(
    admin: Admin, regions: Sequence[str], scope: Scope, name: str, within_s: float
) -> Target:
    """Ask all regions at once what a hold would affect, and whether an unused link exists."""
    import asyncio

    asked = (_ask(admin, one, scope, name, within_s, instances=True) for one in regions)
    return _target(scope, name, dict(zip(regions, await asyncio.gather(*asked), strict=True)))


async def find(
    admin: Admin, regions: Sequence[str], scope: Scope, name: str, within_s: float
) -> Target:
    """Ask all regions at once whether they know the name, until one does; no region about a key.

    Each region replies from its registry. So a kill waits for an isolated region only if no other
    one knows the name.
    """
    import asyncio

    from kcm.errors import Unavailable

    if scope in _KEYS:
        return Target(scope, name, {}, exists=True, silent=[])
    tasks = {
        asyncio.create_task(_ask(admin, one, scope, name, within_s, instances=False)): one
        for one in regions
    }
    said: dict[str, Said] = {}
    left = set(tasks)
    try:
        while left and not any(known for _, known in said.values()):
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            said |= {tasks[task]: task.result() for task in done}
    finally:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    said |= {tasks[task]: (Unavailable("another region replied first"), None) for task in left}
    return _target(scope, name, {region: said[region] for region in regions})


async def _ask(
    admin: Admin, region: str, scope: Scope, name: str, within_s: float, *, instances: bool
) -> Said:
    import asyncio

    from kcm.errors import Unavailable

    radius: BlastRadius | None = None
    try:
        async with asyncio.timeout(within_s):
            radius = await admin.preview(
                region, scope, name, instances=instances, deadline_s=within_s
            )
            if scope == "tenant" or radius.tenants:
                return radius, bool(radius.tenants)
            if scope in _KEYS:
                return radius, True
            return radius, await admin.has_link(region, name, deadline_s=within_s)
    except TimeoutError:
        return radius or Unavailable("no reply in time"), None
    except Exception as error:  # noqa: BLE001 - each region has its own result
        return radius or error, None


def _target(scope: Scope, name: str, said: Mapping[str, Said]) -> Target:
    return Target(
        scope,
        name,
        {region: found for region, (found, _) in said.items()},
        scope != "tenant" and any(known for _, known in said.values()),
        [region for region, (_, known) in said.items() if known is None],
    )


async def check(admin: Admin, target: Target) -> None:
    """Refuse a name that every region reports as unknown.

    A kill of a mistyped name would be complete at once, and the tenant would still be served.
    """
    if not target.unknown or target.silent:
        return
    what = "a tenant" if target.scope == "tenant" else "a link"
    command = "kcm tenant list" if target.scope == "tenant" else "kcm l1 list"
    other = await _near(admin, target)
    meant = f"; did you mean {other}?" if other else ""
    raise Problem(
        Exit.REFUSED, f"unknown_{target.scope}", f"no region has {what} {target.name}",
        f"nothing was changed; `{command}` shows the names{meant}",
    )  # fmt: skip


async def warn(settings: Settings, admin: Admin, target: Target, *, dry_run: bool) -> None:
    """Warn if the hold affects no known tenant, because the name may be mistyped."""
    if not target.empty:
        return
    if target.scope in _KEYS:
        return
    if target.exists:
        where = " in a region that replies" if target.silent else ""
        text = f"no tenant uses the link {target.name}{where}"
        note(settings, text, warning=text)
        return
    if not target.reached:
        return  # no region replied; the placement of the hold reports that
    text = f"no region that replies knows a {target.scope} {target.name}"
    if not dry_run:
        does = "does" if len(target.silent) == 1 else "do"
        text += f"; it is killed, in case {', '.join(target.silent)} {does}"
    other = await _near(admin, target)
    if other:
        text += f". Did you mean {other}?"
    note(settings, text, warning=text, silent=target.silent, near=other or None)


async def _near(admin: Admin, target: Target) -> str:
    scope: Literal["tenant", "link"] = "tenant" if target.scope == "tenant" else "link"
    return await near(admin, list(target.reached), scope, target.name)
