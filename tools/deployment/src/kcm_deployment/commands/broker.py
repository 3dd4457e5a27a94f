"""``kcm broker``: the accounts of a region's broker, while its servers run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from kcm.cli.app_keys import read_public_key
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, common, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_deployment.broker_files import Brokers

HOURS_MAX: Final = 24
"""Hours for which credentials for maintenance are valid at most."""

directory_option = click.option(
    "--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True, metavar="DIR", help="The directory of `kcm init`.",
)  # fmt: skip


@click.group()
def broker() -> None:
    """Change whom a region's broker lets in, while its servers run."""


@broker.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@common
def push(settings: Settings, bundle: Path) -> int:
    """Bring the accounts of a region to all of its servers.

    BUNDLE is REGION/push of what `kcm init` wrote. Clients that were revoked are disconnected.
    Give the command again when a server was down: a server that has the accounts keeps them.

    Example: kcm broker push deployment/eu-de/push
    """
    from kcm_runtime.config import load

    from kcm_deployment import pushing
    from kcm_deployment.layouts import CONFIG

    config = load(pushing.PushConfig, str(bundle / CONFIG))
    found = run_async(pushing.push(config, settings.around.clock))
    value = [
        {"account": one.account, "issued": one.issued, "servers": list(one.nodes)} for one in found
    ]
    rows = [(one.account, one.issued, ", ".join(one.nodes)) for one in found]
    emit(settings, value, ("account", "issued", "servers"), rows)
    return Exit.OK


@broker.command()
@directory_option
@click.option("--region", required=True, type=NAME, help="The region whose broker is meant.")
@click.option("--instance", type=NAME, help="A Core, Gateway or Auditor.")
@click.option("--operator", type=NAME, help="A person. For one who leaves, see --signers, too.")
@click.option("--setup", is_flag=True, help="What provisions the region and pushes its accounts.")
@click.option(
    "--signers", is_flag=True,
    help="The keys that sign the credentials of applications: every application needs new ones.",
)  # fmt: skip
@click.option("--app", type=NAME, help="An application, with --public-key.")
@click.option(
    "--public-key",
    "public",
    metavar="HEX",
    help="The application's key of that time, in hexadecimal.",
)
@common
def revoke(  # noqa: PLR0913 - one argument for each option
    settings: Settings,
    directory: Path,
    region: str,
    instance: str | None,
    operator: str | None,
    app: str | None,
    public: str | None,
    *,
    setup: bool,
    signers: bool,
) -> int:
    """Revoke credentials for a region's broker.

    This changes the files only. Then `kcm init` writes the bundles again, with new credentials for
    whom the plan has, and `kcm broker push` brings the accounts to the servers. It ends
    connections; `kcm kill --instance` and `kcm app revoke` are what takes a key out of service
    everywhere. An application that was revoked needs another key: `kcm app rotate`.

    \b
    Examples:
      kcm broker revoke --dir deployment --region eu-de --instance gateway-eu-de-1
      kcm broker revoke --dir deployment --region eu-de --operator alice --signers
      kcm broker revoke --dir deployment --region eu-de --app shop --public-key 3b6a27bc...
    """  # noqa: D301 - click wants the control character
    if not any((instance, operator, setup, signers, app)) or (app is None) != (public is None):
        raise Problem(
            Exit.USAGE, "usage", "whose credentials?",
            "give --instance, --operator, --setup or --signers, or --app and --public-key",
        )  # fmt: skip
    key = b"" if public is None else read_public_key(public)
    with _changing(directory, region) as brokers:
        files = _files(brokers, region, instance, operator, setup=setup)
        users = brokers.revoke(region, files)
        if app is not None:
            users += brokers.revoke_application(region, app, key)
        if signers:
            brokers.replace_signers(region)
    value = {"region": region, "revoked": users, "signers": signers}
    emit(settings, value, ("revoked",), [(one,) for one in users])
    bundle = directory / region / "push"
    text = f"next: `kcm init PLAN --dir {directory}`, then `kcm broker push {bundle}`"
    note(settings, text, next=["kcm init", "kcm broker push"])
    if app is not None:
        text = (
            f"no credentials for this key work again: `kcm app rotate {app}` gives it another one"
        )
        note(settings, text, key=public, revoked_for_good=True)
    return Exit.OK


@broker.command()
@directory_option
@click.option("--region", required=True, type=NAME, help="The region whose streams are meant.")
@click.option(
    "--account", type=click.Choice(["region", "vault"]), required=True,
    help="vault has the wrapped keys, region all other streams.",
)  # fmt: skip
@click.option(
    "--hours", type=click.IntRange(1, HOURS_MAX), default=2, show_default=True,
    help="Hours for which they are valid.",
)  # fmt: skip
@click.option(
    "--to", "target", type=click.Path(dir_okay=False, path_type=Path), required=True,
    metavar="FILE", help="Where the credentials are written.",
)  # fmt: skip
@common
def maintenance(
    settings: Settings, directory: Path, region: str, account: str, hours: int, target: Path
) -> int:
    """Make credentials for work on the streams of an account.

    They may do everything there, also delete a stream, and end after some hours.

    Example: kcm broker maintenance --dir deployment --region eu-de --account region --to work.creds
    """
    from kcm_broker.claims import User, Validity, user_token
    from kcm_runtime.nats import credentials
    from kcm_runtime.nats.nkeys import KeyKind, SigningKey

    from kcm_deployment.broker_files import MAINTENANCE

    if not target.parent.is_dir():
        raise Problem(
            Exit.USAGE, "usage", f"there is no directory for {target}", "name a file in one that is"
        )
    if target.exists():
        raise Problem(
            Exit.USAGE, "usage", f"{target} exists already", "nothing was done; name a new file"
        )
    now_s = settings.around.clock.unix_ms() // 1000
    end = now_s + hours * 3600
    with _changing(directory, region) as brokers:
        realm, key = brokers.realm(region), SigningKey.generate(KeyKind.USER)
        user = User(key.public, MAINTENANCE, validity=Validity(expires=end))
        token = user_token(realm.key(account, MAINTENANCE), realm.public(account), user, now_s)
        credentials.write(target, credentials.Credentials(token, key))
    value = {"file": str(target), "account": account, "region": region, "until": end}
    emit(settings, value, ("file", "hours"), [(str(target), hours)])
    return Exit.OK


@contextmanager
def _changing(directory: Path, region: str) -> Iterator[Brokers]:
    """Lock a deployment, and turn the errors of its files into ``Problem``."""
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_schemas.codes import KcmError

    from kcm_deployment.broker_files import Brokers
    from kcm_deployment.bundles import AUTHORITY
    from kcm_deployment.locking import exclusive

    authority = directory / AUTHORITY
    if not (authority / "realms" / region).is_dir():
        raise Problem(
            Exit.USAGE, "usage", f"{directory} has no region {region}",
            "name the directory of `kcm init` with --dir",
        )  # fmt: skip
    try:
        with exclusive(directory):
            yield Brokers(authority, (region,), ())
    except (OSError, SecretFileError, KcmError) as error:
        text = error.detail if isinstance(error, KcmError) else str(error)
        raise Problem(Exit.FAULT, "io", text, "correct this, then give the command again") from None


def _files(
    brokers: Brokers, region: str, instance: str | None, operator: str | None, *, setup: bool
) -> list[Path]:
    """Return the credentials that are meant; raises ``Problem`` if there are none of a name."""
    from kcm_broker.roles import INSTANCE_ROLES, Role

    from kcm_deployment.broker_files import SETUP, accounts_of

    wanted = [(instance, sorted({*INSTANCE_ROLES, Role.EMBEDDED})), (operator, [Role.OPERATOR])]
    wanted += [(SETUP, [Role.PROVISIONER, Role.PUSHER])] if setup else []
    found = []
    for name, roles in wanted:
        paths = [
            brokers.user_file(region, role, account, name)
            for role in roles
            for account in accounts_of(role)
            if name is not None
        ]
        present = [path for path in paths if path.exists()]
        if name is not None and not present:
            raise Problem(
                Exit.USAGE, "usage", f"{region} has no credentials of {name}",
                "they are in DIR/authority/users; `kcm roster show` lists instances and operators",
            )  # fmt: skip
        found += present
    return found
