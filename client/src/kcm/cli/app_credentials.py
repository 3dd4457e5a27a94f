"""The credentials with which brokers let an application in: one file for each of its regions.

The broker lets an application send requests for its grants only, and nothing has to be changed on
the broker for it. The Gateways check the same grants, by the application's own key.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.each_region import ask_region
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, common, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kcm_broker.roles import Role
    from kcm_broker.signers import Signers
    from kcm_schemas.app import App

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext


@click.command("credentials")
@click.argument("name", type=NAME)
@click.option(
    "--dir", "directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where the files are written [default: the context's, else the current directory].",
)  # fmt: skip
@click.option(
    "--host-dir", "host", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Write all that the application's host needs into this directory of its own.",
)  # fmt: skip
@click.option(
    "--key", "key_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE", help="With --host-dir: the private key to copy there [default: the context's "
    "for this application, or NAME.key, if it is the present one].",
)  # fmt: skip
@common
def credentials(
    settings: Settings,
    name: str,
    directory: Path | None,
    host: Path | None,
    key_file: Path | None,
) -> int:
    """Write the files with which the brokers let an application in.

    Each region of the application has one, for its present grants. `kcm app create` writes them,
    too. Give them to the application: it reads them again at each connection.

    --host-dir writes a whole directory: a context, the roster, the authorities, these files and
    the private key, if it is on this machine. The same command again brings it up to date.

    \b
    Examples:
      kcm app credentials shop --dir shop
      kcm app credentials shop --host-dir shop-host
    """  # noqa: D301 - click wants the control character
    if host is None and key_file is not None:
        raise click.UsageError("--key needs --host-dir")
    if host is not None and directory is not None:
        raise click.UsageError("--dir and --host-dir exclude each other: give one of them")

    async def ask(admin: Admin, place: str) -> App:
        return (await admin.app(place, name)).entry

    entry = run_async(ask_region(settings, None, ask, {"app": name}))
    if entry.revoked:
        raise Problem(
            Exit.REFUSED, "conflict", f"the application {name} was revoked for good",
            "`kcm app create NAME --grant GRANT` creates another one, under another name",
        )  # fmt: skip
    if host is not None:
        return _write_host(settings, entry, host, key_file)
    rows = list(_written(settings, entry, _placed(settings.context(), entry, directory)))
    if not rows:
        raise _no_signers(settings.context())
    emit(
        settings,
        [{"region": one, "file": str(path)} for one, path in rows],
        ("region", "file"),
        rows,
    )
    return Exit.OK


def issue(settings: Settings, entry: App, beside: Path | None = None) -> None:
    """Write the credentials of an entry that was sent, if this operator can sign them.

    They go to the files that the context names for its application, or into ``beside``. Without
    either, or without the keys of a region, a hint names the command that writes them.
    """
    if entry.revoked:
        return
    named = settings.context().app_name == entry.app
    missing = sorted(entry.regions)
    if beside is not None or named:
        place = _placed(settings.context(), entry, None if named else beside)
        for region, path in _written(settings, entry, place):
            note(settings, f"{region} lets it in with {path}", region=region, credentials=str(path))
            missing = [one for one in missing if one != region]
    if missing:
        text = f"`kcm app credentials {entry.app}` writes what the brokers let it in with"
        note(settings, f"{text}: {', '.join(missing)}", without_credentials=missing)


def _write_host(settings: Settings, entry: App, path: Path, key_file: Path | None) -> int:
    """Write the directory of the application's host."""
    from kcm_broker.roles import Role

    from kcm.cli.app_directory import AppDirectory

    context = settings.context()
    host = AppDirectory(path, context, entry)
    own = context.app_key(entry.app) or Path(f"{entry.app}.key")
    source = key_file or (own if _is_key(own, entry, context) else None)
    regions = [
        one
        for one in entry.regions
        if one in context.regions and (context.signers_path(one) or host.credentials(one).exists())
    ]
    if not regions:
        raise _no_signers(context)
    has_key = host.write(regions, source)

    def place(region: str, role: Role) -> Path:
        made = host.credentials(region)
        return made.with_name("plain.creds") if role is Role.PLAIN else made

    rows = list(_written(settings, entry, place))
    left = sorted(set(entry.regions) - set(regions))
    found = {
        "directory": str(path),
        "context": str(host.context_file),
        "key": str(host.key) if has_key else None,
        "credentials": [{"region": one, "file": str(file)} for one, file in rows],
        "without_credentials": left,
    }
    emit(settings, found, ("region", "file"), rows)
    if not settings.json:
        note(settings, f"context of the host: {host.context_file}")
        if left:
            note(settings, f"without credentials: {', '.join(left)}")
        if not has_key:
            note(settings, f"its private key is not here: put it at {host.key}, mode 600")
    return Exit.OK


def _is_key(path: Path, entry: App, context: ClientContext) -> bool:
    """Whether a file has the application's present key."""
    from kcm_runtime.files.identity_file import load_identity
    from kcm_runtime.files.secret_file import SecretFileError

    try:
        return load_identity(entry.app, str(path), context.system).public == entry.public_key
    except SecretFileError:
        return False


def _placed(
    context: ClientContext, entry: App, directory: Path | None
) -> Callable[[str, Role], Path]:
    """Return where credentials are written: without ``directory``, where the context names them."""
    return partial(_target, context, entry, directory)


def _written(
    settings: Settings, entry: App, place: Callable[[str, Role], Path]
) -> Iterator[tuple[str, Path]]:
    """Write the credentials for each region that the context has keys for.

    ``place`` returns their file by region and role.
    """
    from kcm_broker import signers
    from kcm_broker.roles import Role
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_schemas.codes import KcmError

    context = settings.context()
    for region in entry.regions:
        path = context.signers_path(region) if region in context.regions else None
        if path is None:
            continue
        name = str(path)
        try:
            mine = signers.read(path)
            for role in (Role.APPLICATION, *((Role.PLAIN,) if entry.plain else ())):
                target = place(region, role)
                name = str(target)
                _write(settings, entry, mine, role, target)
                yield region, target
        except (OSError, SecretFileError, KcmError) as error:
            text = str(error)
            if isinstance(error, OSError):
                text = f"cannot write {name}: {error.strerror}"
            elif isinstance(error, KcmError):
                text = error.detail
            raise Problem(
                Exit.USAGE, "usage", f"the credentials of {entry.app} for {region}: {text}",
                f"the entry is stored; correct this, then `kcm app credentials {entry.app}`",
            ) from None  # fmt: skip


def _target(
    context: ClientContext, entry: App, directory: Path | None, region: str, role: Role
) -> Path:
    from kcm_broker.roles import Role

    named = context.app_credentials(region) if context.app_name == entry.app else None
    if directory is None and named is not None and role is Role.APPLICATION:
        return named
    ending = "plain.creds" if role is Role.PLAIN else "creds"
    return (directory or Path()) / f"{entry.app}.{region}.{ending}"


def _write(settings: Settings, entry: App, mine: Signers, role: Role, target: Path) -> None:
    from kcm_broker.accounts import ScopeId
    from kcm_broker.claims import Validity
    from kcm_broker.realm import Issuer, kept_user
    from kcm_broker.roles import Account

    grants = [f"{verb}.{one.tenant}.{one.service}" for one in entry.grants for verb in one.verbs]
    # The broker counts in seconds: the application is let in for all of its last second.
    validity = Validity(entry.not_before_ms // 1000, -(-entry.not_after_ms // 1000))
    scope = ScopeId(role, Account.REGION)
    issuer = Issuer(mine.keys[role], scope, mine.account, settings.around.clock)
    key = mine.user_key(role, entry.app, entry.public_key)
    kept_user(target, issuer, entry.app, grants, validity, key=key)


def _no_signers(context: ClientContext) -> Problem:
    return Problem(
        Exit.USAGE, "usage", f"{context.path} names no `signers` for a region of the application",
        "an operator with the keys that sign credentials gives this command",
    )  # fmt: skip
