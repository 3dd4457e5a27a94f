"""``kcm app approve``: a second operator reads a prepared application, signs it and sends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.app_credentials import issue
from kcm.cli.app_views import columns_of, rows_of
from kcm.cli.each_region import put_everywhere
from kcm.cli.error_report import Problem
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, at_a_terminal, common
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App

    from kcm._internal.admin import Admin
    from kcm.cli.change_summary import Change


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show the entry.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@common
def approve(settings: Settings, file: Path, *, dry_run: bool, yes: bool) -> int:
    """Sign a prepared application as a second operator.

    A grant for every tenant needs it. The entry is shown, and sent after you confirm.

    \b
    Examples:
      kcm app approve shop.entry --dry-run -o json
      kcm app approve shop.entry
    """  # noqa: D301 - click wants the control character
    from kcm_schemas.codec import encode
    from kcm_schemas.signed import read_signed

    raw = file.read_bytes()
    entry = _read(settings, file, raw)
    if dry_run or not yes:
        rows = rows_of(entry, settings.around.clock.unix_ms())
        emit(settings, entry.model_dump(), columns_of(), rows)
    if entry.plain:
        text = f"{entry.app} is plain: any client of the broker may use its grants"
        note(settings, text, plain=True)
    if dry_run:
        return Exit.OK
    if not yes and not _confirmed(settings, file, entry):
        note(settings, "nothing was sent", sent=False)
        return Exit.OK
    signed = encode(settings.context().identity().countersign(read_signed(raw)))

    async def put(admin: Admin, region: str) -> Change:
        from kcm.errors import UnknownApp

        try:
            before: App | None = (await admin.app(region, entry.app)).entry
        except UnknownApp:
            before = None
        await admin.put(region, "app", signed)
        if before is None:
            return "created"
        return "unchanged" if before == entry else "replaced"

    about = {"app": entry.app}
    code = put_everywhere(settings, (), put, about, shows=f"kcm app show {entry.app}")
    if code in (Exit.OK, Exit.PARTIAL):
        issue(settings, entry)
    return code


def _confirmed(settings: Settings, file: Path, entry: App) -> bool:
    if settings.json or not at_a_terminal():
        raise Problem(
            Exit.USAGE, "usage", "this cannot be confirmed as JSON or without a terminal",
            f"read it with `kcm app approve {file} --dry-run`, then give --yes",
        )  # fmt: skip
    return click.confirm(f"Sign and send this entry of {entry.app}?", err=True)


def _read(settings: Settings, file: Path, raw: bytes) -> App:
    from kcm_trust.verify import Untrusted

    try:
        return settings.context().verifier().prepared_app(raw)
    except Untrusted as error:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{file}: {error}",
            "`kcm app create NAME --grant GRANT --prepare FILE` writes one",
        ) from None  # fmt: skip
