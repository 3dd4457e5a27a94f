"""``kcm audit``: the Auditors' journals. Here: ``status``, and ``verify`` offline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from kcm_schemas.text import counted

from kcm.cli.error_report import Problem
from kcm.cli.output import advise, emit, note
from kcm.cli.settings import Settings, common, region_option, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.auditor import AuditorStatus, FollowedRegion

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext

FILLING: Final = 0.70
"""Share of an audit stream's room from which its Cores, and this command, warn."""

NEARLY_FULL: Final = 0.90
"""Share from which they warn again."""

ANCHOR: Final = re.compile(r"[0-9]{1,20}:[0-9a-fA-F]{64}")
"""A journal head as it is printed. A cut one would be reported as a damaged journal."""


@click.group()
def audit() -> None:
    """Follow and check the audit events."""


@audit.command("status")
@region_option
@common
def status(settings: Settings, region: str | None) -> int:
    """Show how full each region's audit stream is.

    Also shows up to which position an Auditor has stored it.

    Exit code 7 if entries are lost: trimmed from a stream, and missing in the Auditor's journal.

    Example: kcm audit status
    """
    found = run_async(_status(settings, region))
    columns = ("region", "state", "recorded", "signed", "trimmed", "room used")
    rows = [
        (r.region, state_of(r), r.position, r.signed, trimmed_of(r), used_of(r))
        for r in found.regions
    ]
    emit(settings, found, columns, rows)
    for entry in found.regions:
        if warning := warning_of(entry):
            note(settings, f"{entry.region}: {warning}", region=entry.region, warning=warning)
    return Exit.CHECK_FAILED if any(entry.lost_last for entry in found.regions) else Exit.OK


def state_of(entry: FollowedRegion) -> str:
    """Return the state of a region's stream."""
    if not entry.reachable:
        return "unreachable"
    return "entries lost" if entry.lost_last else "followed"


def trimmed_of(entry: FollowedRegion) -> str:
    """Return the position up to which the stream was trimmed, and how many Auditors have it."""
    return f"{entry.trimmed} ({entry.witnesses} have it)" if entry.trimmed else ""


def used_of(entry: FollowedRegion) -> str:
    """Return how full the stream is."""
    if not entry.room:
        return f"{counted(entry.used, 'byte')}, no bound"
    return f"{entry.used * 100 // entry.room} % of {entry.room >> 20} MiB"


def warning_of(entry: FollowedRegion) -> str:
    """Return what needs an operator's action; empty if nothing does."""
    if entry.lost_last:
        return (
            f"messages {entry.lost_first} to {entry.lost_last} were trimmed and are not in this "
            "Auditor's journal, so it signs no stream head: see docs/audit.md"
        )
    if not entry.room:
        return "the stream has no size limit and can use up the room of the control stream"
    share = entry.used / entry.room
    if share >= NEARLY_FULL:
        return "the stream is nearly full; when it is full, data requests are refused"
    return "the stream fills: find out why it is not trimmed" if share >= FILLING else ""


@audit.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The Auditor's configuration. With it, signatures are checked, too.",
)
@click.option("--anchor", metavar="SEQ:HASH", help="A journal head that was kept elsewhere.")
@common
def verify(settings: Settings, directory: str, config: str | None, anchor: str | None) -> int:
    """Check a journal's DIRECTORY offline.

    Exit code 7 if an entry was changed, removed or inserted.

    Example: kcm audit verify ~/.local/state/kcm/dev/journal
    """
    if anchor is not None and not ANCHOR.fullmatch(anchor):
        text = (
            "--anchor takes an entry's number and its hash of 64 hexadecimal digits, as in 5:9f..."
        )
        raise Problem(Exit.USAGE, "usage", text, "`kcm audit verify` prints it as head")
    # A separate process, because the client imports no component.
    command = [sys.executable, "-m", "kcm_auditor", "--verify", directory]
    command += ["--config", config] if config else []
    command += ["--anchor", anchor] if anchor else []
    command += ["--json"] if settings.json else []
    if not _installed():
        text = "the Auditor is not installed here"
        raise Problem(Exit.USAGE, "usage", text, "pip install 'kcm[dev]'")
    done = subprocess.run(
        command, check=False, stderr=subprocess.PIPE, text=True, errors="backslashreplace"
    )
    code = _ended(settings, done.returncode, done.stderr)
    if code:
        advise(settings, "keep the directory as evidence; docs/audit.md describes how to continue")
    return code


def _ended(settings: Settings, code: int, said: str) -> int:
    """Return the exit code for a check by another process. ``said`` is its standard error."""
    told = said.strip().rpartition("\n")[2].rpartition(" ERROR ")[2]
    if code == 2:
        raise Problem(Exit.USAGE, "config", told, "--config takes the Auditor's configuration")
    if code not in {0, 1} or "Traceback" in said:
        raise Problem(
            Exit.FAULT, "fault", "the check ended early, without a result",
            "`python -m kcm_auditor --verify DIRECTORY` shows why",
        )  # fmt: skip
    if told:
        note(settings, told, detail=told)
    return Exit.CHECK_FAILED if code else Exit.OK


def _installed() -> bool:
    return any((Path(entry) / "kcm_auditor" / "__main__.py").exists() for entry in sys.path)


async def _status(settings: Settings, region: str | None) -> AuditorStatus:
    context = settings.context()
    admin = settings.admin(context)
    try:
        return await admin.audit_status(auditor_region(admin, context, region))
    finally:
        await admin.close()


def auditor_region(admin: Admin, context: ClientContext, region: str | None) -> str:
    """Return the region asked for, or the first one, that has an Auditor on the roster."""
    from kcm_schemas.roster import Role

    having = {
        entry.region for entry in admin.verifier.roster.instances if entry.role is Role.AUDITOR
    }
    for place in context.in_order(region) if region is None else [context.region(region)]:
        if place in having:
            return place
    raise Problem(
        Exit.USAGE,
        "usage",
        "the roster has no Auditor there",
        f"Auditors are in: {', '.join(sorted(having)) or 'no region'}",
    )
