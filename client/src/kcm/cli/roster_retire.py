"""``kcm roster retire``: let an operator or instance leave."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from kcm_schemas.text import counted

from kcm.cli.error_report import Problem
from kcm.cli.names import NAME
from kcm.cli.output import emit, moment, note
from kcm.cli.own_input import refuse_own_input
from kcm.cli.retirement_plan import Order, Plan, make_plan
from kcm.cli.roster import roster
from kcm.cli.roster_distribution import COLUMNS, Exceptions, Rows, distribute
from kcm.cli.settings import Settings, at_a_terminal, common, run_change
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_trust.identity import Identity

    from kcm._internal.client_context import ClientContext

ROOT_KEY: Final = Path("keys") / "root"
"""Where a development system keeps the root's key, beside its context file."""


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
    help="Do not ask this region. Statements of NAME that only it has will not count any more.",
)
@click.option(
    "--before",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")),
    help="Leave out statements with this time (UTC) or a later one. NAME wrote these times.",
)
@click.option(
    "--leave-out",
    multiple=True,
    metavar="WHAT",
    help="Leave out one statement, named as shown. The id of a lift may be shortened.",
)
@click.option("--dry-run", is_flag=True, help="Show what would still count, and change nothing.")
@click.option(
    "--prepare",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the roster to sign to FILE, and change nothing. See `kcm roster sign`.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@common
def retire(  # noqa: PLR0913 - one argument for each option
    settings: Settings,
    name: str,
    key: Path | None,
    without: tuple[str, ...],
    before: datetime | None,
    leave_out: tuple[str, ...],
    prepare: Path | None,
    *,
    dry_run: bool,
    yes: bool,
) -> int:
    """Retire the operator or instance NAME.

    The statements that still count are shown, and the new roster is signed and sent after you
    confirm. This cannot be undone: a new role needs a new key and a new name.

    All holds that NAME signed still count. So do the lifts, tenants, links, services and wrapped
    keys that this command lists as endorsed. No other statement of NAME counts after that, whenever
    it was signed. If a lift is left out, its hold is in force again.

    \b
    Examples:
      kcm roster retire bob --dry-run
      kcm roster retire bob --before 2026-03-01 --key /media/root/key
      kcm roster retire bob --prepare next
    """  # noqa: D301 - click wants the control character
    before_ms = None if before is None else int(before.replace(tzinfo=UTC).timestamp() * 1000)
    order = Order(
        name, key, without, before_ms, leave_out, dry_run=dry_run, prepare=prepare, yes=yes
    )
    if order.changes and not yes and (settings.json or not at_a_terminal()):
        raise Problem(
            Exit.USAGE, "usage", "this cannot be confirmed as JSON or without a terminal",
            f"check with `kcm roster retire {name} --dry-run`, then give --yes",
        )  # fmt: skip
    if prepare is not None:
        read = [*settings.context().files, *([key] if key else [])]
        refuse_own_input(str(prepare), read, "--prepare")
    return _retire(settings, order)


def _retire(settings: Settings, order: Order) -> int:
    """Show what still counts, ask for confirmation, and sign and distribute the next roster."""
    from kcm_schemas.codec import encode
    from kcm_schemas.signed import Kind

    from kcm.ops.roster_changes import write

    settings.leaves(f"{order.name} is not retired: no region was given a roster")
    plan = run_change(make_plan(settings, order))
    if not (settings.json and order.changes):
        _tell(settings, order, plan)
    if order.dry_run:
        return Exit.OK
    if order.prepare is not None:
        write(order.prepare, encode(plan.new), plan.lists)
        text = f"review it and sign: `kcm roster sign {order.prepare} --known ROSTER --key KEY`"
        note(settings, text, file=str(order.prepare))
        return Exit.OK
    root = _root(settings.context(), order.key)
    if not order.yes:
        if not _confirmed(order, plan):
            note(settings, "nothing was changed", changed=False)
            return Exit.OK
        run_change(_check_again(settings, order, plan))
    return run_change(_distribute(settings, order, plan, encode(root.sign(Kind.ROSTER, plan.new))))


def _confirmed(order: Order, plan: Plan) -> bool:
    endorsed = counted(plan.endorsed, "statement still counts", "statements still count")
    counts = f"{endorsed}, {plan.left_out} {'does' if plan.left_out == 1 else 'do'} not"
    return click.confirm(f"{counts}. Retire {order.name}? This cannot be undone.", err=True)


async def _check_again(settings: Settings, order: Order, shown: Plan) -> None:
    """Raise ``Problem`` if something was signed while the question waited for its answer."""
    now = await make_plan(settings, order)
    if now.content != shown.content:
        raise Problem(
            Exit.REFUSED, "conflict",
            f"{order.name}: the roster, or what {order.name} signed, changed before you confirmed",
            "nothing was changed; stop an instance first, and give the same command again",
        )  # fmt: skip


async def _distribute(settings: Settings, order: Order, plan: Plan, raw: bytes) -> int:
    """Send the signed roster to every region, and show the result of each."""

    def report(rows: Rows) -> None:
        if settings.json:
            _tell(settings, order, plan, rows)
        else:
            emit(settings, rows, COLUMNS, [tuple(row.values()) for row in rows])

    admin = settings.admin(settings.context())
    try:
        exceptions = Exceptions(order.without, plan.missing)
        return await distribute(settings, admin, raw, plan.lists, exceptions, report)
    finally:
        await admin.close()


def _tell(
    settings: Settings,
    order: Order,
    plan: Plan,
    rows: Rows | None = None,
) -> None:
    value = {
        "name": order.name,
        "version": plan.new.version,
        "dry_run": order.dry_run,
        "signed": plan.found,
    }
    value |= {} if rows is None else {"regions": rows}
    emit(
        settings,
        value,
        ("statement", "signed (UTC)", "regions", "endorsed", "no longer served"),
        [
            (
                one.what,
                moment(one.time_ms) if one.time_ms else "not stated",
                ", ".join(one.regions),
                "yes" if one.endorsed else "no: left out",
                one.dark,
            )
            for one in plan.found
        ],
    )
    note(
        settings,
        f"{counted(plan.endorsed, 'statement')} of {order.name} endorsed, {plan.left_out} left out",
        endorsed=plan.endorsed,
        left_out=plan.left_out,
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
            Exit.CHECK_FAILED, "untrusted", f"{path} is not the key of the pinned operator root",
            "nothing was changed; name the root's key with --key",
        )  # fmt: skip
    return root
