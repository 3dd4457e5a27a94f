"""``kcm app``: the applications, their keys and their grants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli.app_keys import public_key
from kcm.cli.each_region import ask_region, put_everywhere
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, common, region_option, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.apps import AppRow
    from kcm_schemas.app import App, AppGrant

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.cli.change_summary import Change

DAYS_MAX: Final = 3660
"""Maximum days of an entry: ten years."""

GRANT_HELP: Final = (
    "What it may ask for (repeatable). VERBS is encrypt, decrypt or both, which is the default; "
    "SERVICE may be '*'."
)
grants_option = partial(
    click.option,
    "--grant", "grants", multiple=True, metavar="TENANT/SERVICE[:VERBS]", help=GRANT_HELP,
)  # fmt: skip
key_option = click.option(
    "--key", "key_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="The file of its private key, which is created if there is none [default: NAME.key].",
)  # fmt: skip
public_option = click.option(
    "--public-key", "public", metavar="HEX",
    help="Its Ed25519 public key, if the private key stays with the application.",
)  # fmt: skip
days_option = click.IntRange(1, DAYS_MAX)


@click.group()
def app() -> None:
    """Create, change and show the applications, and revoke them.

    An application encrypts and decrypts through a Gateway, for what its grants list.
    """


@app.command("create")
@click.argument("name", type=NAME)
@grants_option(required=True)
@key_option
@public_option
@click.option("--days", type=days_option, default=365, show_default=True, help="Days it is valid.")
@click.option("--region", "regions", multiple=True, help="A region of it [default: all].")
@click.option(
    "--plain", is_flag=True, help="Let clients use its grants without a key, and in clear."
)
@common
def create(
    settings: Settings,
    name: str,
    grants: tuple[str, ...],
    key_file: Path | None,
    public: str | None,
    days: int,
    regions: tuple[str, ...],
    *,
    plain: bool,
) -> int:
    """Create an application. The same command again changes nothing.

    The key is created here, or by the application, which then gives you its public key only. Each
    region of the context gets the entry; --region restricts where the application may act.

    \b
    Examples:
      kcm app create shop --grant acme/payroll
      kcm app create report --grant acme/payroll:decrypt --public-key 3b6a27bc...
    """  # noqa: D301 - click wants the control character
    from kcm._internal import app_entries

    wanted = _grants(grants)
    context = settings.context()
    own = public_key(context, name, key_file, public)
    places = [context.region(one) for one in regions] or list(context.regions)
    now_ms = settings.around.clock.unix_ms()

    def entry(found: dict[str, App | None]) -> App:
        first = app_entries.first_entry(
            name, own, wanted, places, now_ms=now_ms, days=days, plain=plain
        )
        newest = app_entries.newest_of(found)
        if newest is None:
            return first
        names = ("public_key", "grants", "regions", "plain", "revoked")
        other = [one for one in names if getattr(newest, one) != getattr(first, one)]
        if other:
            raise Problem(
                Exit.REFUSED, "conflict",
                f"the application {name} exists already, and differs in: {', '.join(other)}",
                f"`kcm app show {name}` shows it; `kcm app change {name}` changes its grants, and "
                f"`kcm app rotate {name}` its key",
            )  # fmt: skip
        return app_entries.changed(found, newest)

    return _put(settings, name, entry)


@app.command("change")
@click.argument("name", type=NAME)
@grants_option()
@click.option(
    "--withdraw", multiple=True, metavar="TENANT/SERVICE", help="A grant to withdraw (repeatable)."
)
@click.option("--days", type=days_option, help="Days from now on that it is valid.")
@click.option("--region", "regions", multiple=True, help="Its regions from now on (repeatable).")
@click.option("--plain/--no-plain", default=None, help="Allow or forbid requests without a key.")
@common
def change(
    settings: Settings,
    name: str,
    grants: tuple[str, ...],
    withdraw: tuple[str, ...],
    days: int | None,
    regions: tuple[str, ...],
    *,
    plain: bool | None,
) -> int:
    """Change what an application may do, where, and until when.

    A grant for a service replaces the one that it has for that service.

    Example: kcm app change shop --grant acme/orders --withdraw acme/payroll
    """
    from kcm._internal import app_entries

    more, context = _grants(grants), settings.context()
    places = [context.region(one) for one in regions]
    now_ms = settings.around.clock.unix_ms()

    def changes(newest: App) -> dict[str, Any]:
        kept = app_entries.without(newest.grants, withdraw)
        said: dict[str, Any] = {"grants": app_entries.with_grants(kept, more)}
        if places:
            said["regions"] = sorted(set(places))
        if days is not None:
            said["not_after_ms"] = now_ms + days * app_entries.DAY_MS
        if plain is not None:
            said["plain"] = plain
        return said

    return _change(settings, name, changes)


@app.command("rotate")
@click.argument("name", type=NAME)
@key_option
@public_option
@common
def rotate(settings: Settings, name: str, key_file: Path | None, public: str | None) -> int:
    """Give an application another key. Its old key ends at once.

    Give a new file: the application needs the old one until it has the new one.

    Example: kcm app rotate shop --key shop-2.key
    """
    if key_file is None and public is None:
        raise Problem(
            Exit.USAGE, "usage", "which key?", "give a new file with --key, or --public-key"
        )
    own = public_key(settings.context(), name, key_file, public)
    return _change(settings, name, lambda _: {"public_key": own})


@app.command("revoke")
@click.argument("name", type=NAME)
@common
def revoke(settings: Settings, name: str) -> int:
    """Revoke an application for good.

    Gateways refuse it, also in sessions that are open. Its entry stays, as revoked.

    Example: kcm app revoke shop
    """
    return _change(settings, name, lambda _: {"revoked": True})


@app.command("list")
@region_option
@common
def list_apps(settings: Settings, region: str | None) -> None:
    """Show the applications of a region, by name.

    Example: kcm app list -o json
    """

    async def ask(admin: Admin, place: str) -> list[AppRow]:
        return await admin.apps(place)

    rows = run_async(ask_region(settings, region, ask))
    columns = ("app", "state", "grants", "regions", "until", "revision", "public key")
    now_ms = settings.around.clock.unix_ms()
    table = [
        (
            row.app,
            _state(row, now_ms, forked=row.forked),
            row.grants,
            " ".join(row.regions),
            _day(row.not_after_ms),
            row.revision,
            row.public_key.hex()[:16],
        )
        for row in rows
    ]
    emit(settings, rows, columns, table)


@app.command("show")
@click.argument("name", type=NAME)
@region_option
@common
def show_app(settings: Settings, name: str, region: str | None) -> None:
    """Show one application as a region has it, with its grants.

    Example: kcm app show shop -o json
    """
    from kcm._internal import app_entries

    async def ask(admin: Admin, place: str) -> tuple[App, bool]:
        return await admin.app(place, name)

    entry, forked = run_async(ask_region(settings, region, ask, {"app": name}))
    state = _state(entry, settings.around.clock.unix_ms(), forked=forked)
    value = entry.model_dump() | {"state": state, "forked": forked}
    columns = ("app", "state", "grant", "regions", "until", "public key")
    about = (" ".join(entry.regions), _day(entry.not_after_ms), entry.public_key.hex())
    grants = [app_entries.written(one) for one in entry.grants] or [""]
    emit(settings, value, columns, [(name, state, one, *about) for one in grants])


def _grants(texts: Sequence[str]) -> list[AppGrant]:
    from kcm._internal import app_entries
    from kcm._internal.arguments import BadValue

    try:
        return app_entries.in_order(map(app_entries.read_grant, texts))
    except BadValue as error:
        raise Problem(
            Exit.USAGE, "malformed", str(error), "`kcm service list TENANT` shows the services"
        ) from None


def _change(settings: Settings, name: str, changes: Callable[[App], dict[str, Any]]) -> int:
    """Send the next entry of an application that exists, to every region of the context."""
    from kcm._internal import app_entries
    from kcm._internal.arguments import BadValue

    def entry(found: dict[str, App | None]) -> App:
        newest = app_entries.newest_of(found)
        if newest is None:
            raise Problem(
                Exit.REFUSED, "unknown_app", f"no region that replies has an application {name}",
                "`kcm app list` shows them; `kcm app create NAME --grant GRANT` creates one",
            )  # fmt: skip
        try:
            return app_entries.changed(found, newest, **changes(newest))
        except BadValue as error:
            raise Problem(
                Exit.USAGE, "malformed", str(error), f"`kcm app show {name}` shows its grants"
            ) from None

    return _put(settings, name, entry)


def _put(settings: Settings, name: str, entry: Callable[[dict[str, App | None]], App]) -> int:
    from kcm._internal import statements

    found: dict[str, App | None] = {}
    sent: list[App] = []

    async def choose(admin: Admin, context: ClientContext) -> list[str]:
        import asyncio

        from kcm.errors import ServiceError, UnknownApp

        failed: list[ServiceError] = []

        async def look(region: str) -> None:
            try:
                found[region] = (await admin.app(region, name))[0]
            except UnknownApp:
                found[region] = None
            except ServiceError as error:
                failed.append(error)

        await asyncio.gather(*map(look, context.in_order(None)))
        if not found:
            raise failed[0]
        sent.append(entry(found))
        return list(context.regions)

    async def put(admin: Admin, region: str) -> Change:
        await admin.put(region, "app", statements.app(admin.identity, sent[0]))
        before = found.get(region, ...)
        if before is ...:
            return "not known"
        if before is None:
            return "created"
        return "unchanged" if before == sent[0] else "replaced"

    code = put_everywhere(settings, (), put, {"app": name}, choose, shows=f"kcm app show {name}")
    if sent and sent[0].plain and code == Exit.OK:
        note(settings, f"{name} is plain: any client of the broker may use its grants", plain=True)
    return code


def _state(entry: App | AppRow, now_ms: int, *, forked: bool) -> str:
    if entry.revoked:
        return "revoked"
    if forked:
        return "forked"
    if now_ms >= entry.not_after_ms:
        return "expired"
    return "plain" if entry.plain else "valid"


def _day(ms: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
    return str(ms)
