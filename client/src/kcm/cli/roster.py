"""``kcm roster``: whom the system believes, and letting somebody leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from kcm.cli.core_state import LACKED
from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, moment, note
from kcm.cli.settings import Settings, common, run_async, run_change
from kcm.cli.wait_notice import asking
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.roster import Instance, Operator
    from kcm_trust.endorsements import Endorsements
    from kcm_trust.identity import Identity

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.errors import ServiceError
    from kcm.ops.roster_changes import Found

Rows = list[dict[str, str]]

BROUGHT: Final = ("region", "result", "detail")
"""Of the table that says which regions have a roster."""

NOT_KEPT: Final = "a region may have the roster, and this context has not"
"""How it stands while a roster is brought to the regions."""

SHOWS_IT: Final = "`kcm roster show` reads it from the regions"
"""What to do then."""

STORED: Final = "stored"
"""What came of a roster in a region that has it."""

ROOT_KEY: Final = Path("keys") / "root"
"""Where a development system keeps the root's key, beside its context file."""


@click.group()
def roster() -> None:
    """Who belongs to the system, and letting somebody leave.

    The roster lists instances and operators, and is signed by the operator root.
    """


@roster.command("show")
@common
def show(settings: Settings) -> int:
    """Show who is on the roster, and which regions have it.

    It is the highest one of the context and of all regions. Exit code 6 when a region has an older
    one, does not answer or is not in this context, 5 when none answers.
    """
    return run_async(_show(settings))


@roster.command("put")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common
def put(settings: Settings, file: Path) -> int:
    """Bring the signed roster FILE to every region, and to this context. Nobody is restarted.

    Lists of what lasts of those who are retired are read from FILE.lasting/NAME.
    """
    return run_change(_put(settings, file, file.read_bytes()))


@roster.command("retire")
@click.argument("name", type=NAME)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The operator root's private key [default: keys/root beside the context file].",
)
@click.option(
    "--without",
    multiple=True,
    metavar="REGION",
    help="Do not ask this region: what NAME signed and only it has goes dark.",
)
@click.option(
    "--before",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Leave out what was signed at this moment (UTC) or later, by its own word.",
)
@click.option(
    "--leave-out",
    multiple=True,
    metavar="WHAT",
    help="Leave out one statement, as it is shown; the id of a lift may be shortened.",
)
@click.option("--dry-run", is_flag=True, help="Show what would last, and change nothing.")
@click.option(
    "--prepare",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what the root has to sign to FILE, and change nothing: see `kcm roster sign`.",
)
@common
def retire(
    settings: Settings,
    name: str,
    key: Path | None,
    without: tuple[str, ...],
    before: datetime | None,
    leave_out: tuple[str, ...],
    prepare: Path | None,
    *,
    dry_run: bool,
) -> int:
    """Let the operator or instance NAME leave.

    Their holds go on counting, and so do the lifts, tenants, links, services and wrapped keys that
    are shown here as lasting. Everything else with their signature counts nowhere any more,
    whenever it was signed: a lift that is left out makes its hold one that is in force.

    \b
    Examples:
      kcm roster retire bob --dry-run
      kcm roster retire bob --before 2026-03-01 --key /media/root/key
      kcm roster retire bob --prepare next
    """  # noqa: D301 - click wants the control character
    before_ms = None if before is None else int(before.replace(tzinfo=UTC).timestamp() * 1000)
    wanted = _Wanted(name, key, without, before_ms, leave_out, dry_run, prepare)
    return run_change(_retire(settings, wanted))


class _Wanted:
    """The arguments of a retirement."""

    def __init__(
        self,
        name: str,
        key: Path | None,
        without: Sequence[str],
        before_ms: int | None,
        leave_out: Sequence[str],
        dry_run: bool,  # noqa: FBT001 - as it is given
        prepare: Path | None,
    ) -> None:
        self.name, self.key, self.without = name, key, without
        self.before_ms, self.leave_out, self.dry_run = before_ms, leave_out, dry_run
        self.prepare = prepare


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
    columns = ("name", "what", "region", "state", "lasting")
    value = shown | {"entries": [dict(zip(columns, row, strict=True)) for row in people]}
    emit(settings, value, columns, people)
    if not settings.json:
        where = ", ".join(f"{region} {states[region]}" for region in regions)
        note(settings, f"version {known.version} of {moment(known.issued_ms)}: {where}")
        for region in missing:
            note(settings, f"{region}: {LACKED}")
    if silent:
        return Exit.UNAVAILABLE
    return Exit.OK if set(states.values()) == {"has it"} else Exit.NOT_COMPLETE


def _row(entry: Instance | Operator) -> tuple[str, str, str, str, int]:
    from kcm_schemas.roster import Operator
    from kcm_trust.roster import name_of

    if isinstance(entry, Operator):
        what, region = "operator: " + ", ".join(role.value for role in entry.roles), ""
    else:
        what, region = entry.role.value, entry.region
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
        raise Problem(Exit.CHECK_FAILED, "untrusted", f"{file}: {error}") from None
    if missing := lacking(known, new, read_lists(file, new)):
        raise Problem(
            Exit.USAGE, "usage", f"{file}.lasting/{missing[0]} is missing, or is another list",
            "bring it with the roster: without it the lifts and records on it count nowhere",
        ) from None  # fmt: skip
    admin = settings.admin(context)

    regions = context.in_order(None)

    def told(rows: Rows) -> None:
        shown = [
            row | {"change": change_of[row["region"]] if row["result"] == STORED else ""}
            for row in rows
        ]
        value = {"version": new.version, "regions": shown}
        emit(settings, value, (*BROUGHT, "change"), [tuple(row.values()) for row in shown])
        if all(row["result"] == STORED for row in rows) and (
            text := change_summary.said(change_of.values())
        ):
            note(settings, text, changed=False)

    try:
        before = await asyncio.gather(*(change_summary.of_roster(admin, one) for one in regions))
        change_of = {
            region: one.change(0, raw=raw) for region, one in zip(regions, before, strict=True)
        }
        target = _Target((), lacked(context, new))
        return await _bring(settings, admin, raw, read_lists(file, new), target, told)
    finally:
        await admin.close()


async def _retire(settings: Settings, wanted: _Wanted) -> int:
    from kcm_schemas.codec import encode
    from kcm_schemas.signed import Kind
    from kcm_trust.endorsements import Endorsements

    from kcm.cli.departure_impact import darkened
    from kcm.ops.roster_changes import Refused, choose, collect, highest, lacked, read_lists, write
    from kcm.ops.roster_changes import retire as next_roster

    context = settings.context()
    settings.leaves(f"{wanted.name} is not retired: no region was given a roster")
    admin = settings.admin(context)
    try:
        _check_regions(admin, wanted.without)
        if admin.identity.name == wanted.name:
            raise Problem(
                Exit.REFUSED, "forbidden", "you cannot retire yourself", "ask another operator to"
            )
        regions = [one for one in context.in_order(None) if one not in wanted.without]
        with asking(settings, "the roster", regions) as answered:
            _, known = await highest(admin, regions, answered)
        # Before anybody is asked what they signed: a Core does not know either who this is.
        next_roster(known, wanted.name, Endorsements(), known.issued_ms)
        missing = lacked(context, known)
        if unheard := [one for one in missing if one not in wanted.without]:
            raise _silent(unheard, LACKED)
        with asking(settings, f"what {wanted.name} signed", regions) as answered:
            collected = await collect(admin, regions, wanted.name, answered)
        if collected.silent:
            raise _silent(list(collected.silent), str(next(iter(collected.silent.values()))))
        found = choose(collected.found, wanted.before_ms, wanted.leave_out)
        lasting = Endorsements(one.digest for one in found if one.lasts)
        new = next_roster(known, wanted.name, lasting, settings.around.clock.unix_ms())
        with asking(settings, "what goes dark", regions):
            found = await darkened(admin, wanted.name, found)
        changes = not wanted.dry_run and wanted.prepare is None
        if not (settings.json and changes):
            _tell(settings, wanted, found, new.version)
        if wanted.dry_run:
            return Exit.OK
        lists = read_lists(context.roster_path, known) | {wanted.name: lasting}
        if wanted.prepare is not None:
            write(wanted.prepare, encode(new), lists)
            text = f"look, and sign: `kcm roster sign {wanted.prepare} --known ROSTER --key KEY`"
            note(settings, text, file=str(wanted.prepare))
            return Exit.OK
        raw = encode(_root(context, wanted.key).sign(Kind.ROSTER, new))

        def told(rows: Rows) -> None:
            if settings.json:
                _tell(settings, wanted, found, new.version, rows)
            else:
                emit(settings, rows, BROUGHT, [tuple(row.values()) for row in rows])

        return await _bring(settings, admin, raw, lists, _Target(wanted.without, missing), told)
    except Refused as error:
        hint = "`kcm roster show` has the names; --dry-run shows statements as they are called"
        raise Problem(Exit.REFUSED, "refused", f"{wanted.name}: {error}", hint) from None
    finally:
        await admin.close()


def _check_regions(admin: Admin, names: Sequence[str]) -> None:
    """Refuse a region that is neither in the context nor on the roster."""
    from kcm.ops.roster_changes import lacked

    others = lacked(admin.context, admin.verifier.roster)
    for name in names:
        if name not in others:
            admin.context.region(name)


def _silent(silent: Sequence[str], why: str) -> Problem:
    names = ", ".join(sorted(silent))
    again = "use a context that has it" if why == LACKED else "try again"
    return Problem(
        Exit.UNAVAILABLE,
        "unavailable",
        f"region {names} does not say what it has: {why}",
        f"what only it has would go dark: {again}, or accept that with --without REGION",
    )


def _tell(
    settings: Settings,
    wanted: _Wanted,
    found: Sequence[Found],
    version: int,
    rows: Rows | None = None,
) -> None:
    value = {"name": wanted.name, "version": version, "dry_run": wanted.dry_run, "signed": found}
    value |= {} if rows is None else {"regions": rows}
    emit(
        settings,
        value,
        ("statement", "signed (UTC)", "regions", "lasts", "goes dark"),
        [
            (
                one.what,
                moment(one.time_ms) if one.time_ms else "does not say",
                ", ".join(one.regions),
                "yes" if one.lasts else "no: left out",
                one.dark,
            )
            for one in found
        ],
    )
    lasts = sum(one.lasts for one in found)
    note(
        settings,
        f"{lasts} statements of {wanted.name} last, {len(found) - lasts} are left out",
        lasting=lasts,
        left_out=len(found) - lasts,
    )


def _root(context: ClientContext, key: Path | None) -> Identity:
    from kcm_runtime.files.identity_file import load_identity
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_trust.identity import ROOT

    path = key or context.path.parent / ROOT_KEY
    try:
        root = load_identity(ROOT, str(path), context.system)
    except SecretFileError as error:
        raise Problem(
            Exit.USAGE, "context", f"the operator root's key: {error}", "name its file with --key"
        ) from None
    if root.public != context.root_public:
        raise Problem(
            Exit.CHECK_FAILED, "untrusted", f"{path} is not the key of the root that is pinned"
        )
    return root


def _by_answer(results: Mapping[str, ServiceError | None]) -> dict[str, list[str]]:
    """Why regions do not have the roster, each text once."""
    found: dict[str, list[str]] = {}
    for region, error in results.items():
        if error is not None:
            found.setdefault(str(error), []).append(region)
    return found


def _brought(region: str, error: ServiceError | None) -> dict[str, str]:
    """What came of bringing a roster to a region."""
    if error is None:
        return {"region": region, "result": STORED, "detail": ""}
    return {"region": region, "result": error.code.value, "detail": error.detail}


def _keep(
    settings: Settings, context: ClientContext, raw: bytes, lists: Mapping[str, Endorsements]
) -> None:
    """Make a roster this context's, and say that it is from then on; raises ``OSError``."""
    from kcm.ops.roster_changes import keep

    keep(context, raw, lists)
    settings.leaves(
        "the roster may be in some regions only; it is this context's now",
        f"`kcm roster put {context.roster_path}` brings it to every region",
    )


class _Target:
    """Regions that need not have a roster, and those that the context lacks."""

    def __init__(self, without: Sequence[str], lacked: Sequence[str]) -> None:
        self.without, self.lacked = without, lacked


async def _bring(
    settings: Settings,
    admin: Admin,
    raw: bytes,
    lists: Mapping[str, Endorsements],
    target: _Target,
    told: Callable[[Rows], None],
) -> int:
    """Give it to every region; ``told`` gets what came of that, whatever fails afterwards."""
    import asyncio

    from kcm.ops.roster_changes import put_everywhere

    context = admin.context
    settings.leaves(NOT_KEPT, SHOWS_IT)
    try:
        results = await put_everywhere(admin, context.in_order(None), raw, lists)
    except (
        asyncio.CancelledError,
        KeyboardInterrupt,
        SystemExit,
    ):  # interrupted: a region may have it: whoever goes on needs it, and the lists
        _keep(settings, context, raw, lists)
        raise
    done = [region for region, error in results.items() if error is None]
    told(
        [_brought(region, error) for region, error in results.items()]
        + [
            {"region": region, "result": "not_in_context", "detail": LACKED}
            for region in target.lacked
        ]
    )
    if done:
        _keep(settings, context, raw, lists)
    for said, regions in _by_answer(results).items():
        note(settings, f"{', '.join(regions)}: {said}", regions=regions, error=said)
    for region in target.lacked:
        note(settings, f"{region}: {LACKED}", regions=[region], error=LACKED)
    if not done:
        return (
            Exit.REFUSED
            if not any(e.retryable for e in results.values() if e)
            else (Exit.UNAVAILABLE)
        )
    if [region for region in results if region not in done and region not in target.without]:
        note(settings, "`kcm roster put FILE` with the context's roster brings it there")
        return Exit.PARTIAL
    if [region for region in target.lacked if region not in target.without]:
        note(settings, "`kcm roster put FILE` with a context that has the region brings it there")
        return Exit.PARTIAL
    return Exit.OK
