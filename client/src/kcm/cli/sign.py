"""``kcm roster sign``: the operator root signs, where neither network nor context is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.exits import Exit
from kcm.cli.output import emit, note
from kcm.cli.problems import Problem
from kcm.cli.roster import roster
from kcm.cli.settings import Settings, common

if TYPE_CHECKING:
    from kcm_schemas.roster import Roster


@roster.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator root's private key.",
)
@click.option(
    "--known",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="ROSTER",
    help="The roster that counts now: what changes is shown, and checked.",
)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="SIGNED",
    help="Where the signed roster goes [default: FILE.signed].",
)
@common
def sign(settings: Settings, file: Path, key: Path, known: Path | None, to: Path | None) -> None:
    """Sign the roster that `kcm roster retire --prepare FILE` has written.

    For the machine on which the root's key lives. Bring FILE and FILE.lasting/ there, and what this
    writes back: `kcm roster put` takes it. Look at what changes before you use the key.

    Example: kcm roster sign next --key /media/root/key --known roster
    """
    from kcm_crypto.secretfile import SecretFileError
    from kcm_schemas.codec import decode, encode
    from kcm_schemas.codes import KcmError
    from kcm_schemas.roster import Roster
    from kcm_schemas.signed import Kind
    from kcm_trust.identity import ROOT, Identity
    from kcm_trust.rosters import changed, entries, follows, name_of, verify_roster
    from kcm_trust.verify import Untrusted

    from kcm.rosters import read_lists, write

    try:
        new = decode(Roster, file.read_bytes())
    except KcmError:
        raise Problem(
            Exit.USAGE, "usage", f"{file} is no roster that is to be signed",
            "`kcm roster retire NAME --prepare FILE` writes one",
        ) from None  # fmt: skip
    try:
        root = Identity.load(ROOT, str(key), new.system)
    except (SecretFileError, FileNotFoundError) as error:
        raise Problem(Exit.USAGE, "usage", f"the operator root's key: {error}") from None
    raw = encode(root.sign(Kind.ROSTER, new))
    changes: frozenset[str] = frozenset()
    try:
        verify_roster(raw, root.public, 0)
        if known is not None:
            before = verify_roster(known.read_bytes(), root.public, 0)
            follows(before, new)
            changes = changed(before, new) | (_names(new) - _names(before))
    except Untrusted as error:
        raise Problem(Exit.CHECK_FAILED, "untrusted", f"{file}: {error}") from None
    lists = read_lists(file, new)
    lacks = {
        name_of(one) for one in entries(new) if one.retired is not None and one.retired.count
    } - lists.keys()
    target = to or file.with_name(f"{file.name}.signed")
    write(target, raw, lists)
    row = {
        "file": str(target), "system": new.system, "version": new.version,
        "root": root.public.hex(), "changes": sorted(changes), "without_list": sorted(lacks),
    }  # fmt: skip
    shown = (str(target), new.system, new.version, ", ".join(sorted(changes)) or "not compared")
    emit(settings, row, ("file", "system", "version", "changes"), [shown])
    if lacks and not settings.json:
        names = ", ".join(sorted(lacks))
        note(settings, f"no list of {names} beside {file}: a region that has it needs it not again")
    if not settings.json:
        note(settings, f"signed by root {root.public.hex()}; next: `kcm roster put {target}`")


def _names(roster: Roster) -> frozenset[str]:
    """Everybody on a roster."""
    from kcm_trust.rosters import entries, name_of

    return frozenset(map(name_of, entries(roster)))
