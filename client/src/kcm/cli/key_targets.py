"""The keys of applications and instances, as a hold on one of them names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import click

from kcm.cli.error_report import Problem
from kcm.cli.names import no_name
from kcm.cli.output import note
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App

    from kcm._internal.admin import Admin
    from kcm.cli.settings import Settings
    from kcm.errors import ServiceError

Scope = Literal["tenant", "link", "app", "instance"]
"""What ``kcm kill`` names."""

LOOK_S: Final = 1.5
"""Seconds in which the regions say which key an application has, if one of them does."""

_PUBLIC_SIZE: Final = 32


class KeyNameType(click.ParamType[str]):
    """A name, or a name with one of its keys: the public key in hex, or as a hold shows it."""

    name = "text"

    def convert(
        self,
        value: str,
        param: click.Parameter | None,  # noqa: ARG002 - click passes it
        ctx: click.Context | None,  # noqa: ARG002 - click passes it
    ) -> str:
        """Return the name, or the target of a hold; raises ``Problem``."""
        from kcm_schemas.names import is_name, key_target

        name, dot, key = value.partition(".")
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            raw = b""
        size = 2 * len(raw) == len(key) and len(raw)
        if not is_name(name) or (dot and size not in (_PUBLIC_SIZE, _PUBLIC_SIZE // 2)):
            raise Problem(
                Exit.USAGE, "malformed", no_name(value),
                "give a name, as in shop, or a name and its public key, as in shop.3b6a27bc… with "
                "64 hex digits, or as `kcm hold list` shows it",
            )  # fmt: skip
        return key_target(name, raw) if size == _PUBLIC_SIZE else value.lower() if dot else value


KEY_NAME: Final = KeyNameType()


async def find_key(
    settings: Settings,
    admin: Admin,
    regions: Sequence[str],
    scope: Scope,
    name: str,
    within_s: float,
) -> str:
    """Return the target of a hold: the name, or the key that an application or an instance has now.

    ``name`` may be such a target already: then no region is asked. The first region has
    ``within_s`` seconds to reply. Raises ``Problem``.
    """
    if scope in ("tenant", "link") or "." in name:
        return name
    if scope == "instance":
        return _of_instance(admin, name)
    return await _of_app(settings, admin, regions, name, within_s)


def _of_instance(admin: Admin, name: str) -> str:
    from kcm_schemas.names import key_target
    from kcm_trust.verify import Untrusted

    try:
        entry = admin.verifier.instance(name)
    except Untrusted:
        raise Problem(
            Exit.REFUSED, "unknown_instance", f"the roster has no instance {name}",
            "nothing was changed; `kcm roster show` shows the names",
        ) from None  # fmt: skip
    return key_target(name, entry.public_key)


async def _of_app(
    settings: Settings, admin: Admin, regions: Sequence[str], name: str, within_s: float
) -> str:
    from kcm_schemas.names import key_target

    from kcm._internal import app_entries
    from kcm._internal.client_context import NotLetIn
    from kcm._internal.staggered import worst
    from kcm.cli.similar_names import near

    found, failed = await _entries(admin, regions, name, within_s)
    newest = app_entries.newest_of(found)
    if newest is None and len(found) == len(regions):
        other = await near(admin, regions, "app", name)
        meant = f"; did you mean {other}?" if other else ""
        raise Problem(
            Exit.REFUSED, "unknown_app", f"no region has an application {name}",
            f"nothing was changed; `kcm app list` shows the names{meant}",
        )  # fmt: skip
    if newest is None:
        error = worst(failed)
        if isinstance(error, NotLetIn):
            raise error
        text = f"no region that replies knows the key of {name}. {error.detail}"
        raise Problem(
            Exit.UNAVAILABLE, "unavailable", text,
            f"nothing was changed; `--app {name}.KEY`, with its public key in hex, asks no region",
        )  # fmt: skip
    target = key_target(name, newest.public_key)
    keys = {key_target(name, one.public_key) for one in found.values() if one is not None}
    for other in sorted(keys - {target}):
        text = f"a region has another key of {name}: `kcm kill --app {other}` kills that one, too"
        note(settings, text, other=other)
    return target


async def warn_of_key(
    settings: Settings, admin: Admin, regions: Sequence[str], scope: Scope, target: str
) -> None:
    """Say that a key that was given has no such name now: an earlier one, or a typing error.

    Says nothing without a ``target``.
    """
    from kcm_schemas.names import key_target

    name = target.partition(".")[0]
    if not target:
        return
    if scope == "instance":
        entries = [one for one in admin.verifier.roster.instances if one.instance == name]
        known, shows = [one.public_key for one in entries], "kcm roster show"
    elif scope == "app":
        found, _ = await _entries(admin, regions, name)
        if len(found) < len(regions):
            return
        known = [one.public_key for one in found.values() if one is not None]
        shows = f"kcm app show {name}"
    else:
        return
    if target not in {key_target(name, key) for key in known}:
        text = f"no {scope} {name} has this key now; `{shows}` shows the one that it has"
        note(settings, text, unknown_key=target)


async def _entries(
    admin: Admin, regions: Sequence[str], name: str, within_s: float = LOOK_S
) -> tuple[dict[str, App | None], dict[str, ServiceError]]:
    """Return the entry of an application in each region that replies; ``None`` if it has none.

    They have ``LOOK_S`` seconds, and until one replies, ``within_s``. Also returns why the others
    did not reply.
    """
    import asyncio

    from kcm.errors import ServiceError, Unavailable, UnknownApp

    found: dict[str, App | None] = {}
    failed: dict[str, ServiceError] = {}

    async def look(region: str) -> None:
        try:
            found[region] = (await admin.app(region, name)).entry
        except UnknownApp:
            found[region] = None
        except ServiceError as error:
            failed[region] = error

    tasks = [asyncio.ensure_future(look(region)) for region in regions]
    try:
        _, left = await asyncio.wait(tasks, timeout=LOOK_S)
        async with asyncio.timeout(max(0.0, within_s - LOOK_S)):
            while left and all(entry is None for entry in found.values()):
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):  # no failure of a region
            raise end
    late = Unavailable("no reply in time")
    failed |= {one: late for one in regions if one not in found and one not in failed}
    return found, failed


def may_hold(settings: Settings) -> bool:
    """Whether the context's operator has the role that places holds, by the roster."""
    from kcm_schemas.roster import OperatorRole

    context = settings.context()
    name = context.identity().name
    return any(
        OperatorRole.SECURITY in one.roles and one.retired is None
        for one in context.verifier().roster.operators
        if one.operator == name
    )
