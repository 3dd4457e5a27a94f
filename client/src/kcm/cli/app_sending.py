"""Sends the next entry of an application to every region, or writes it for a second operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcm.cli.app_credentials import issue
from kcm.cli.app_places import unknown_places
from kcm.cli.each_region import put_everywhere
from kcm.cli.error_report import Problem
from kcm.cli.output import emit, note
from kcm.cli.own_input import refuse_own_input
from kcm.cli.settings import Settings, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change

    Found = dict[str, App | None]
    """The entry of each region that replies; ``None`` if it has none."""

    EntryOf = Callable[[Found], App]
    """Returns the entry to send, for those that the regions have."""


def change_entry(
    settings: Settings,
    name: str,
    changes: Callable[[App], dict[str, Any]],
    prepare: Path | None = None,
) -> int:
    """Send the next entry of an application that exists; see ``put_entry``."""
    from kcm._internal import app_entries
    from kcm._internal.arguments import BadValue

    def entry(found: Found) -> App:
        newest = app_entries.newest_of(found)
        if newest is None:
            raise Problem(
                Exit.REFUSED, "unknown_app", f"no region that replies has an application {name}",
                "`kcm app list` shows them; `kcm app create NAME --grant GRANT` creates one",
            )  # fmt: skip
        try:
            changed = changes(newest)
        except BadValue as error:
            raise Problem(
                Exit.USAGE, "malformed", error.detail, f"`kcm app show {name}` shows its grants"
            ) from None
        if newest.revoked and not changed.get("revoked"):
            raise revoked_for_good(name)
        return app_entries.changed(found, newest, **changed)

    return put_entry(settings, name, entry, prepare)


def revoked_for_good(name: str) -> Problem:
    """Return the error for an application that was revoked."""
    return Problem(
        Exit.REFUSED, "conflict", f"the application {name} was revoked for good",
        "`kcm app create NAME --grant GRANT` creates another one, under another name",
    )  # fmt: skip


def put_entry(
    settings: Settings,
    name: str,
    entry_of: EntryOf,
    prepare: Path | None = None,
    beside: Path | None = None,
) -> int:
    """Sign the entry that ``entry_of`` returns, and send it to each region of the context.

    With ``prepare``, write the signed entry there instead: another operator approves it. The
    credentials of the broker are written into the directory ``beside``, or as ``issue`` does.
    """
    from kcm._internal import statements

    if prepare is not None:
        return _prepared(settings, name, entry_of, prepare)
    found: Found = {}
    sent: list[App] = []

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        found.update(await _look(admin, context, name))
        sent.append(entry_of(found))
        _refuse_alone(sent[0])
        return list(context.regions)

    async def put(admin: Admin, region: str) -> Change:
        await admin.put(region, "app", statements.app(admin.identity, sent[0]))
        if region not in found:
            return "not known"
        before = found[region]
        if before is None:
            return "created"
        return "unchanged" if before == sent[0] else "replaced"

    code = put_everywhere(settings, (), put, {"app": name}, choose, shows=f"kcm app show {name}")
    if sent and code == Exit.OK and not sent[0].revoked:
        for place in run_async(unknown_places(settings, sent[0].grants)):
            text = f"the region that was asked has no service {place} yet: check the grant"
            note(settings, text, unknown=place)
    if sent and code in (Exit.OK, Exit.PARTIAL):
        issue(settings, sent[0], beside)
    if sent and sent[0].plain and code == Exit.OK:
        note(settings, f"{name} is plain: any client of the broker may use its grants", plain=True)
    return code


def needs_two() -> Problem:
    """Return the error for a grant of every tenant that one operator would send."""
    return Problem(
        Exit.USAGE, "usage", "an application with a grant for every tenant needs two operators",
        "--prepare FILE writes the entry; an operator with role security sends it with "
        "`kcm app approve FILE`",
    )  # fmt: skip


async def _look(admin: Admin, context: ClientContext, name: str) -> Found:
    """Return the entry of every region that replies; raises ``ServiceError`` if none does."""
    import asyncio

    from kcm.errors import ServiceError, UnknownApp

    found: Found = {}
    failed: list[ServiceError] = []

    async def look(region: str) -> None:
        try:
            found[region] = (await admin.app(region, name)).entry
        except UnknownApp:
            found[region] = None
        except ServiceError as error:
            failed.append(error)

    await asyncio.gather(*map(look, context.in_order(None)))
    if not found:
        raise failed[0]
    return found


def _refuse_alone(entry: App) -> None:
    if entry.reaches_every_tenant and not entry.revoked:
        raise needs_two()


def _prepared(settings: Settings, name: str, entry_of: EntryOf, path: Path) -> int:
    from kcm_runtime.files.atomic import place

    from kcm._internal import statements

    context = settings.context()
    refuse_own_input(str(path), context.files, "--prepare")
    if path.exists():
        raise Problem(
            Exit.USAGE, "usage", f"{path} exists already", "nothing was done; name a new file"
        )
    if not path.parent.is_dir():
        raise Problem(
            Exit.USAGE, "usage", f"there is no directory for {path}", "name a file in one that is"
        )

    async def sign() -> tuple[App, bytes]:
        admin = settings.admin(context)
        try:
            entry = entry_of(await _look(admin, context, name))
            return entry, statements.app(admin.identity, entry)
        finally:
            await admin.close()

    entry, raw = run_async(sign())
    place(path, raw, private=False)
    row = {"app": name, "revision": entry.revision, "file": str(path)}
    emit(settings, row, tuple(row), [tuple(row.values())])
    text = f"nothing was sent: another operator reads and sends it with `kcm app approve {path}`"
    note(settings, text, sent=False, file=str(path))
    return Exit.OK
