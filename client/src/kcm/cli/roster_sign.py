"""``kcm roster sign``: the operator root signs a roster, without a network or a context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.error_report import Problem
from kcm.cli.output import emit, note
from kcm.cli.own_input import refuse_own_input
from kcm.cli.roster import roster
from kcm.cli.settings import Settings, common
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.roster import Roster
    from kcm_trust.identity import Identity


@roster.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--known",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="ROSTER",
    help="The present signed roster. The changes are shown and checked against it.",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator root's private key. Without it, only show the changes.",
)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="SIGNED",
    help="The file of the signed roster [default: FILE.signed].",
)
@common
def sign(settings: Settings, file: Path, known: Path, key: Path | None, to: Path | None) -> None:
    """Show what a prepared roster changes, and sign it.

    `kcm roster retire --prepare FILE` writes one. Use this command on the machine with the operator
    root's key: copy FILE, FILE.endorsements/ and the present roster there. Review every line
    before you give the key. Copy SIGNED and SIGNED.endorsements/ back: `kcm roster put` sends them.

    \b
    Examples:
      kcm roster sign next --known roster
      kcm roster sign next --known roster --key /media/root/key
    """  # noqa: D301 - click wants the control character
    from kcm_schemas.codec import encode
    from kcm_schemas.signed import Kind
    from kcm_trust.roster import follows, verify_roster
    from kcm_trust.verify import Untrusted

    from kcm.ops.roster_changes import differences, lacking, read_lists, write

    target = to or file.with_name(f"{file.name}.signed")
    refuse_own_input(str(target), [file, known, *([key] if key else [])], "--to")
    new = _draft(file)
    root = None if key is None else _root(key, new.system)
    before, raw = _known(known, root, key), b""
    try:
        follows(before, new)
        if root is not None:
            raw = encode(root.sign(Kind.ROSTER, new))
            verify_roster(raw, root.public, before.version)
    except Untrusted as error:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{file}: {error}",
            "no instance would accept it: prepare it again, from the present roster",
        ) from None  # fmt: skip
    lists = read_lists(file, new)
    if missing := lacking(before, new, lists):
        raise Problem(
            Exit.USAGE, "usage", f"{file}.endorsements/{missing[0]} is missing, or is another list",
            "copy it with the file: without it, no region accepts the statements on it",
        ) from None  # fmt: skip
    changes = differences(before, new)
    row = {
        "system": new.system,
        "version": new.version,
        "changes": [{"name": name, "change": text} for name, text in changes],
        "signed": root is not None,
        "file": str(target) if root is not None else None,
        "root": None if root is None else root.public.hex(),
    }
    if root is not None:
        write(target, raw, lists)  # before the result is shown
    emit(settings, row, ("name", "change"), changes)
    if root is None:
        note(settings, f"version {new.version}: not signed; give --key to sign it")
        return
    text = f"version {new.version} is signed by root {root.public.hex()}: copy {target} and "
    text += f"{target}.endorsements/ back; `kcm roster put {target}`"
    note(settings, text, file=str(target))


def _draft(file: Path) -> Roster:
    from kcm_schemas.codec import decode
    from kcm_schemas.codes import KcmError
    from kcm_schemas.roster import Roster

    try:
        return decode(Roster, file.read_bytes())
    except KcmError:
        raise Problem(
            Exit.USAGE, "usage", f"{file} is not an unsigned roster",
            "`kcm roster retire NAME --prepare FILE` writes one",
        ) from None  # fmt: skip


def _root(key: Path, system: str) -> Identity:
    from kcm_runtime.files.identity_file import load_identity
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_trust.identity import ROOT

    try:
        return load_identity(ROOT, str(key), system)
    except SecretFileError as error:
        raise Problem(
            Exit.USAGE, "usage", f"the operator root's key: {error}", "name its file with --key"
        ) from None


def _known(path: Path, root: Identity | None, key: Path | None) -> Roster:
    """Return the present roster. With the key, its signature is verified."""
    from kcm_schemas.codec import decode
    from kcm_schemas.codes import KcmError
    from kcm_schemas.roster import Roster
    from kcm_schemas.signed import read_signed
    from kcm_trust.roster import verify_roster
    from kcm_trust.verify import Untrusted

    try:
        raw = path.read_bytes()
        if root is not None:
            return verify_roster(raw, root.public, 0)
        return decode(Roster, read_signed(raw).body)
    except Untrusted as error:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{path}, by {key}: {error}",
            "check that it is the present roster, and the key of the root that signed it",
        ) from None  # fmt: skip
    except KcmError:
        raise Problem(
            Exit.USAGE, "usage", f"{path} is not a signed roster",
            "--known takes the present one, for example `roster` beside the context file",
        ) from None  # fmt: skip
