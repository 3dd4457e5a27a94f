"""``kcm app``: the applications, their keys and their grants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli.app_keys import public_key
from kcm.cli.app_sending import change_entry, put_entry
from kcm.cli.app_views import list_apps, show_app
from kcm.cli.each_region import put_everywhere
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.settings import Settings, common
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App, AppGrant

    from kcm._internal.admin import Admin
    from kcm.cli.change_summary import Change

DAYS_MAX: Final = 3660
"""Maximum days of an entry: ten years."""

GRANT_HELP: Final = (
    "What it may ask for (repeatable). VERBS is encrypt, decrypt or both, which is the default; "
    "SERVICE may be '*', and so may TENANT if a second operator approves it."
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
prepare_option = click.option(
    "--prepare", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the entry to FILE and send nothing: another operator approves it.",
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
@prepare_option
@common
def create(  # noqa: PLR0913 - one argument for each option
    settings: Settings,
    name: str,
    grants: tuple[str, ...],
    key_file: Path | None,
    public: str | None,
    days: int,
    regions: tuple[str, ...],
    prepare: Path | None,
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

    return put_entry(settings, name, entry, prepare)


@app.command("change")
@click.argument("name", type=NAME)
@grants_option()
@click.option(
    "--withdraw", multiple=True, metavar="TENANT/SERVICE", help="A grant to withdraw (repeatable)."
)
@click.option("--days", type=days_option, help="Days from now on that it is valid.")
@click.option("--region", "regions", multiple=True, help="Its regions from now on (repeatable).")
@click.option("--plain/--no-plain", default=None, help="Allow or forbid requests without a key.")
@prepare_option
@common
def change(
    settings: Settings,
    name: str,
    grants: tuple[str, ...],
    withdraw: tuple[str, ...],
    days: int | None,
    regions: tuple[str, ...],
    prepare: Path | None,
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

    return change_entry(settings, name, changes, prepare)


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
    return change_entry(settings, name, lambda _: {"public_key": own})


@app.command("revoke")
@click.argument("name", type=NAME)
@common
def revoke(settings: Settings, name: str) -> int:
    """Revoke an application for good.

    Gateways refuse it, also in sessions that are open. Its entry stays, as revoked.

    Example: kcm app revoke shop
    """
    return change_entry(settings, name, lambda _: {"revoked": True})


@app.command("approve")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common
def approve(settings: Settings, file: Path) -> int:
    """Sign a prepared application as a second operator, and send it.

    A grant for every tenant needs it. Read the entry first: `-o json` shows it all.

    Example: kcm app approve shop.entry
    """
    from kcm_schemas.codec import encode
    from kcm_schemas.signed import read_signed
    from kcm_trust.verify import Untrusted

    from kcm._internal import app_entries

    context = settings.context()
    raw = file.read_bytes()
    try:
        entry = context.verifier().prepared_app(raw)
    except Untrusted as error:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{file}: {error}",
            "`kcm app create NAME --grant GRANT --prepare FILE` writes one",
        ) from None  # fmt: skip
    signed = encode(context.identity().countersign(read_signed(raw)))
    grants = ", ".join(map(app_entries.written, entry.grants))

    async def put(admin: Admin, region: str) -> Change:
        await admin.put(region, "app", signed)
        return "replaced" if entry.revision > 1 else "created"

    about = {"app": entry.app, "grants": grants}
    return put_everywhere(settings, (), put, about, shows=f"kcm app show {entry.app}")


for _command in (list_apps, show_app):
    app.add_command(_command)


def _grants(texts: Sequence[str]) -> list[AppGrant]:
    from kcm._internal import app_entries
    from kcm._internal.arguments import BadValue

    try:
        return app_entries.in_order(map(app_entries.read_grant, texts))
    except BadValue as error:
        raise Problem(
            Exit.USAGE, "malformed", str(error), "`kcm service list TENANT` shows the services"
        ) from None
