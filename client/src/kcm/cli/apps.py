"""``kcm app``: the applications, their keys and their grants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli.app_approval import approve
from kcm.cli.app_credentials import credentials
from kcm.cli.app_keys import AppKey
from kcm.cli.app_sending import change_entry, needs_two, put_entry, revoked_for_good
from kcm.cli.app_views import list_apps, show_app
from kcm.cli.error_report import Problem
from kcm.cli.key_targets import may_hold
from kcm.cli.kill import kill_now
from kcm.cli.names import NAME
from kcm.cli.output import note, one_document
from kcm.cli.settings import Settings, common, run_change
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App, AppGrant


_NO_KEY: Final = b"\xff" * 31 + b"\x3f"
"""In place of the key of an application that exists, if its file is not here."""

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
    help="The file of its private key, which is created if there is none [default: the context's "
    "for this application, or NAME.key].",
)  # fmt: skip
new_key_option = click.option(
    "--key", "key_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="The file of its new private key, which is created if there is none.",
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
    if prepare is None and any(one.tenant == "*" for one in wanted):
        raise needs_two()
    own = AppKey(context, name, key_file, public)
    places = [context.region(one) for one in regions] or list(context.regions)
    now_ms = settings.around.clock.unix_ms()

    def entry(found: dict[str, App | None]) -> App:
        newest = app_entries.newest_of(found)
        key = own.public(make=newest is None)
        first = app_entries.first_entry(
            name, key or _NO_KEY, wanted, places, now_ms=now_ms, days=days, plain=plain
        )
        if newest is None:
            return first
        _refuse_other(newest, first, now_ms)
        return app_entries.changed(found, newest)

    code = put_entry(settings, name, entry, prepare, beside=own.path.parent)
    if own.has_file:
        _say_key(settings, name, own.path, code)
    return code


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
    if not (grants or withdraw or days or regions or plain is not None):
        raise Problem(
            Exit.USAGE, "usage", "nothing to change", "`kcm app change --help` shows the options"
        )
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
@new_key_option
@public_option
@prepare_option
@common
def rotate(
    settings: Settings,
    name: str,
    key_file: Path | None,
    public: str | None,
    prepare: Path | None,
) -> int:
    """Give an application another key. Its old key ends at once.

    Give a new file: the application needs the old one until it has the new one.

    Example: kcm app rotate shop --key shop-2.key
    """
    if key_file is None and public is None:
        raise Problem(
            Exit.USAGE, "usage", "which key?", "give a new file with --key, or --public-key"
        )
    own = AppKey(settings.context(), name, key_file, public)
    old: list[bytes] = []

    def changes(newest: App) -> dict[str, Any]:
        old.append(newest.public_key)
        if newest.reaches_every_tenant and prepare is None and not newest.revoked:
            raise needs_two()  # before a key is made
        key = None if newest.revoked else own.public(make=True)
        if key == newest.public_key:
            raise Problem(
                Exit.USAGE, "usage", f"{name} has this key already",
                "nothing was changed: give a new file with --key",
            )  # fmt: skip
        return {"public_key": key}

    code = change_entry(settings, name, changes, prepare)
    if own.has_file:
        _say_key(settings, name, own.path, code)
    if old and code == Exit.OK and prepare is None:
        text = (
            f"brokers let its old credentials in until they expire. `kcm broker revoke --dir DIR "
            f"--region REGION --app {name} --public-key {old[0].hex()}` ends them"
        )
        note(settings, text, old_public_key=old[0].hex())
    return code


@app.command("revoke")
@click.argument("name", type=NAME)
@click.option("--reason", default="", help="A reason that is stored with the hold.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds to wait until every instance has confirmed.",
)
@common
def revoke(settings: Settings, name: str, reason: str, timeout: float) -> int:
    """Revoke an application for good.

    An operator with role security also takes its key out of service, as `kcm kill --app NAME` does,
    and waits until every instance has confirmed. Its entry stays, as revoked: a Gateway refuses it
    as soon as it has read the entry.

    Example: kcm app revoke shop --reason "replaced by web"
    """
    code: int = Exit.OK
    holds = may_hold(settings)
    with one_document(settings, *(["hold"] if holds else []), "entries"):
        if holds:
            code = run_change(kill_now(settings, None, "app", name, reason, timeout))
        code = change_entry(settings, name, lambda _: {"revoked": True}) or code
    if not holds:
        text = (
            f"its key is not taken out of service: an operator with role security does that, and "
            f"sees when every instance has, with `kcm kill --app {name}`"
        )
        note(settings, text, held=False)
    return code


for _command in (approve, credentials, list_apps, show_app):
    app.add_command(_command)


def _grants(texts: Sequence[str]) -> list[AppGrant]:
    from kcm._internal import app_entries
    from kcm._internal.arguments import BadValue

    try:
        return app_entries.joined(map(app_entries.read_grant, texts))
    except BadValue as error:
        raise Problem(
            Exit.USAGE, "malformed", error.detail, "`kcm service list TENANT` shows the services"
        ) from None


def _refuse_other(newest: App, wanted: App, now_ms: int) -> None:
    """Raise ``Problem`` if the application that exists is not the one that is to be created."""
    if newest.revoked:
        raise revoked_for_good(newest.app)
    names = ("public_key", "grants", "regions", "plain")
    other = [one for one in names if getattr(newest, one) != getattr(wanted, one)]
    if other:
        raise Problem(
            Exit.REFUSED, "conflict",
            f"the application {newest.app} exists already, and differs in: {', '.join(other)}",
            f"`kcm app show {newest.app}` shows it; `kcm app change {newest.app}` changes its "
            f"grants, and `kcm app rotate {newest.app}` its key",
        )  # fmt: skip
    if now_ms >= newest.not_after_ms:
        raise Problem(
            Exit.REFUSED, "conflict", f"the application {newest.app} exists already, and expired",
            f"`kcm app change {newest.app} --days 365` prolongs it",
        )  # fmt: skip


def _say_key(settings: Settings, name: str, path: Path, code: int) -> None:
    if code in (Exit.OK, Exit.PARTIAL) and not settings.json:
        text = f"the private key is in {path}; [app] of a context names {name} and this file"
        note(settings, text)
