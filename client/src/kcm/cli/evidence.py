"""``kcm hold export`` and ``kcm hold verify``: the signed evidence of a kill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.error_report import Problem
from kcm.cli.holds import find, hold
from kcm.cli.output import advise, emit, note
from kcm.cli.output_file import OUTPUT, STDOUT, sink
from kcm.cli.own_input import refuse_own_input
from kcm.cli.settings import (
    Settings,
    common,
    common_with_output,
    first_region_option,
    once,
    run_async,
)
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldExport
    from kcm_schemas.roster import Roster
    from kcm_trust.evidence import Findings

    from kcm._internal.admin import Admin
    from kcm._internal.evidence_file import Evidence


@hold.command("export")
@click.argument("hold_id")
@click.option(
    "-o", "--output", metavar="FILE", type=OUTPUT, default=STDOUT, help="[default: stdout]"
)
@first_region_option
@common_with_output
def export(settings: Settings, hold_id: str, output: str, region: str | None) -> int:
    """Write the signed evidence of a kill to one file.

    The file has the hold, its lift, the result with the receipts of all instances, and the roster.
    The id may be shortened. Exit code 6 if the kill has no stored result; the rest is written.

    Example: kcm hold export 5d41402a -o evidence.json
    """
    from kcm._internal.evidence_file import written

    refuse_own_input(output, settings.context().files)
    evidence, told = run_async(_export(settings, hold_id, region))
    with sink(output, private=False) as writing:
        writing.write(written(evidence))
    about = {"hold_id": told.hold_id, "complete": told.complete, "unstored": told.unstored}
    # Of a lifted hold, `complete` is about the lift. Its kill has ended, and the result remains.
    if told.result and (told.complete or told.lift):
        text = f"hold {told.hold_id.hex()}: exported with its result"
        if told.unstored:
            text += f", which is not stored: {told.unstored}"
        note(settings, text, **about)
        return Exit.OK
    why = told.unstored or "the kill is not complete"
    text = f"hold {told.hold_id.hex()}: exported without a valid result: {why}"
    if told.complete:
        text = f"hold {told.hold_id.hex()}: exported; it has no stored result: {why}"
    note(settings, text, **about)
    watch = f"`kcm hold show {told.hold_id.hex()} --wait 60` watches the kill"
    advise(settings, f"{watch}; export it again when its result is stored")
    return Exit.NOT_COMPLETE


@hold.command("verify")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--root",
    metavar="HEX",
    help="The operator root's public key, 64 digits [default: the one in the context].",
    **once,
)
@common
def verify(settings: Settings, file: Path, root: str | None) -> int:
    """Check FILE, which `kcm hold export` wrote, offline.

    Only signed statements count, verified by the operator root's key of --root or of the context.
    Without --root, the context's roster is used if it is higher than the file's. Exit code 7 if a
    check fails. Facts that only a Core can know are shown as attested.

    \b
    Examples:
      kcm hold verify evidence.json
      kcm hold verify evidence.json --root "$ROOT"
    """  # noqa: D301 - click wants the control character
    from kcm_trust.evidence import Statements, examine

    evidence = _read(file)
    public, known = _believed(settings, root)
    given = Statements(
        root=bytes.fromhex(evidence.root),
        system=evidence.system,
        hold_id=bytes.fromhex(evidence.hold_id),
        hold=evidence.hold,
        lift=evidence.lift,
        result=evidence.result,
        roster=evidence.roster,
        lists=evidence.lists,
    )
    found = examine(given, public, known)
    _show(settings, found)
    if found.good:
        return Exit.OK
    advise(settings, "do not rely on this file; `kcm hold export HOLD_ID` writes a new one")
    return Exit.CHECK_FAILED


async def _export(
    settings: Settings, prefix: str, region: str | None
) -> tuple[Evidence, HoldExport]:
    from kcm._internal.evidence_file import FORMAT, VERSION, Evidence

    async with settings.kills(region) as (admin, _, kills):
        view = await find(kills, prefix)
        answered, told = await kills.export(view.hold_id)
        roster = (await admin.roster(answered)).roster
        lists = await _lists(admin, answered, told.lift, roster)
        evidence = Evidence(
            format=FORMAT,
            version=VERSION,
            system=admin.context.system,
            root=admin.context.root_public.hex(),
            hold_id=told.hold_id.hex(),
            hold=told.hold,
            lift=told.lift,
            result=told.result,
            roster=roster,
            lists=lists,
        )
    return evidence, told


async def _lists(admin: Admin, region: str, lift: bytes, raw: bytes) -> dict[str, bytes]:
    """Fetch the endorsements of the lift's signers that are retired on the roster."""
    from kcm_trust.roster import entries, name_of, verify_roster
    from kcm_trust.statements import signers

    if not lift:
        return {}
    found, names = {}, signers(lift)
    for one in entries(verify_roster(raw, admin.context.root_public, 0)):
        if one.retired is not None and one.retired.count and name_of(one) in names:
            digests = await admin.endorsements(region, name_of(one), one.retired)
            if digests is not None:
                found[name_of(one)] = digests
    return found


def _read(file: Path) -> Evidence:
    from kcm._internal.evidence_file import FILE_MAX, Unreadable, read

    try:
        with file.open("rb") as reading:
            return read(reading.read(FILE_MAX + 1))
    except OSError as error:
        text = f"cannot read {file}: {error.strerror}"
        raise Problem(Exit.USAGE, "usage", text, "`kcm hold export` writes such files") from None
    except Unreadable as error:
        text = f"{file} is not evidence of a hold: {error}"
        raise Problem(
            Exit.CHECK_FAILED, "malformed", text, "`kcm hold export` writes such files"
        ) from None


def _believed(settings: Settings, root: str | None) -> tuple[bytes, Roster | None]:
    """Return the operator root's public key, and the context's roster."""
    if root is None:
        context = settings.context()
        return context.root_public, context.highest()[1]
    try:
        public = bytes.fromhex(root)
    except ValueError:
        public = b""
    if len(public) != 32 or len(root) != 64:
        raise click.UsageError("--root takes a public key: 64 hexadecimal digits")
    return public, None


def _show(settings: Settings, found: Findings) -> None:
    held = found.held
    value = {
        "good": found.good,
        "hold_id": held.hold.id if held else None,
        "scope": held.hold.scope if held else None,
        "target": held.hold.target if held else None,
        "checks": found.checks,
        "attested": found.attested,
    }
    rows = [("format", "ok", "")] + [(one.check, one.state, one.detail) for one in found.checks]
    emit(settings, value, ("check", "state", "detail"), rows)
    if settings.json:
        return
    for one in found.attested:
        note(settings, f"attested by a Core alone: {one}")
    what = f"hold {held.hold.id.hex()} on {held.hold.scope} {held.hold.target}" if held else "it"
    note(settings, f"{what}: {'all checks passed' if found.good else 'a check FAILED'}")
