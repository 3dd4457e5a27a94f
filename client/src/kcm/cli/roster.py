"""``kcm roster``: the members of the system. Here: ``show`` and ``put``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.core_state import LACKED
from kcm.cli.error_report import Problem
from kcm.cli.output import advise, emit, moment, note
from kcm.cli.roster_distribution import COLUMNS, STORED, Exceptions, Rows, distribute
from kcm.cli.settings import Settings, common, run_async, run_change
from kcm.cli.wait_notice import asking
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.roster import Instance, Operator


@click.group()
def roster() -> None:
    """Show and change the members of the system.

    The roster lists instances and operators. The operator root signs it.
    """


@roster.command("show")
@common
def show(settings: Settings) -> int:
    """Show the entries of the roster, and which regions have it.

    Shows the roster with the highest version of the context and all regions. Exit code 6 if a
    region has an older one, does not reply or is not in this context; 5 if no region replies.
    """
    return run_async(_show(settings))


@roster.command("put")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common
def put(settings: Settings, file: Path) -> int:
    """Send the signed roster FILE to every region.

    Running instances take it over without a restart, and this context stores it. The endorsements
    of a retired signer are read from FILE.endorsements/NAME.
    """
    return run_change(_put(settings, file, file.read_bytes()))


async def _show(settings: Settings) -> int:
    from kcm_trust.roster import entries

    from kcm.errors import ServiceError
    from kcm.ops.roster_changes import each, highest, lacked

    context = settings.context()
    admin = settings.admin(context)
    try:
        regions = context.in_order(None)
        with asking(settings, "the roster", regions) as answered:
            raw, known = await highest(admin, regions, answered)
        states = {}
        with asking(settings, "the roster", regions) as answered:
            said = await each(regions, admin.roster, answered)
        for region, view in said.items():
            if isinstance(view, ServiceError):
                states[region] = "unavailable"
            else:
                states[region] = "has it" if view.roster == raw else "has an older one"
    finally:
        await admin.close()
    silent = set(states.values()) == {"unavailable"}
    missing = lacked(context, known)
    states |= dict.fromkeys(missing, LACKED)
    shown = {"version": known.version, "issued_ms": known.issued_ms, "regions": states}
    people = [_row(one) for one in entries(known)]
    columns = ("name", "what", "region", "state", "endorsements")
    value = shown | {"entries": [dict(zip(columns, row, strict=True)) for row in people]}
    emit(settings, value, columns, people)
    if not settings.json:
        where = ", ".join(f"{region} {states[region]}" for region in regions)
        note(settings, f"version {known.version} of {moment(known.issued_ms)}: {where}")
        for region in missing:
            note(settings, f"{region}: {LACKED}")
    if hint := _next_step(set(states.values())):
        advise(settings, hint)
    if silent:
        return Exit.UNAVAILABLE
    return Exit.OK if set(states.values()) == {"has it"} else Exit.NOT_COMPLETE


def _next_step(states: set[str]) -> str:
    """Return what to do about the regions that do not have the roster; empty if all have it."""
    steps = {
        "has an older one": "`kcm roster put FILE` with the roster of this version sends it there",
        "unavailable": "`kcm region list` shows why a region does not reply",
        LACKED: "use a context that has the region",
    }
    return "; ".join(step for state, step in steps.items() if state in states)


def _row(entry: Instance | Operator) -> tuple[str, str, str, str, int]:
    from kcm_schemas.roster import Operator
    from kcm_trust.roster import name_of

    if isinstance(entry, Operator):
        what, region = "operator: " + ", ".join(role.value for role in entry.roles), ""
    else:
        inside = f" inside of {entry.application}" if entry.application else ""
        what, region = f"{entry.role.value}{inside}", entry.region
    state = "acts" if entry.retired is None else "retired"
    return name_of(entry), what, region, state, entry.retired.count if entry.retired else 0


async def _put(settings: Settings, file: Path, raw: bytes) -> int:
    import asyncio

    from kcm_trust.roster import follows
    from kcm_trust.verify import Untrusted

    from kcm.cli import change_summary
    from kcm.ops.roster_changes import lacked, lacking, read_lists

    context = settings.context()
    settings.leaves("no region was given the roster")
    try:
        known = context.highest()[1]
        new = context.believe(raw, known.version)
        follows(known, new)
    except Untrusted as error:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{file}: {error}",
            f"nothing was sent; name a roster of system {context.system} that the context's root "
            "has signed: `kcm roster show` shows the valid one, from which to prepare the next",
        ) from None  # fmt: skip
    if missing := lacking(known, new, read_lists(file, new)):
        raise Problem(
            Exit.USAGE, "usage", f"{file}.endorsements/{missing[0]} is missing, or is another list",
            "copy it with the roster: without it, no region accepts the statements on it",
        ) from None  # fmt: skip
    admin = settings.admin(context)

    regions = context.in_order(None)

    def report(rows: Rows) -> None:
        shown = [
            row | {"change": change_of[row["region"]] if row["result"] == STORED else ""}
            for row in rows
        ]
        value = {"version": new.version, "regions": shown}
        emit(settings, value, (*COLUMNS, "change"), [tuple(row.values()) for row in shown])
        if all(row["result"] == STORED for row in rows) and (
            text := change_summary.said(change_of.values())
        ):
            note(settings, text, changed=False)

    try:
        before = await asyncio.gather(*(change_summary.of_roster(admin, one) for one in regions))
        change_of = {
            region: one.change(0, raw=raw) for region, one in zip(regions, before, strict=True)
        }
        exceptions = Exceptions((), lacked(context, new))
        return await distribute(settings, admin, raw, read_lists(file, new), exceptions, report)
    finally:
        await admin.close()
