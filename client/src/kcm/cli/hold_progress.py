"""The table of a hold: the instances that may have held a key, and which of them have purged."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kcm_schemas.text import counted

from kcm.cli.error_report import Problem, clean
from kcm.cli.output import emit, moment, note
from kcm.cli.settings import Settings
from kcm.cli.streams import is_terminal
from kcm.cli.table_layout import laid_out
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView
    from kcm_schemas.admin.kill_status import HoldStatus, IncarnationStatus, RegionStatus
    from rich.console import RenderableType

    from kcm.cli.other_holds import OtherHolds

COLUMNS: Final = ("region", "instance", "role", "state", "keys purged", "purge", "after")

TELL_S: Final = 2.0
"""Seconds after which a command without a live table reports what it waits for."""

NAMED_MAX: Final = 8
"""Names in a line of text; the table has all of them."""

SHOWN: Final = 16
"""Hexadecimal digits of a hold's id in a text: enough to find it."""

CANNOT_STORE: Final = "cannot store"
"""The state of a Core that cannot store the hold on its disk."""

REGION_STATES: Final = {
    "durable": "stored",
    "watching": "stored; watched too briefly",
    "differing": "stored; its Cores know different tenants, or have no baseline of them",
    "leases-ended": "isolated: its leases ended",
    "unbounded": "isolated: may still serve",
    "waiting": "no reply",
}

WHY: Final = {
    "watching": "the Core that replies there started, reconnected or missed a message recently "
    "and cannot know yet that no instance is missing",
    "differing": "the Cores there know different tenants, or have no baseline of them",
    "unbounded": "no reply; its region quorum allows it to serve, so there is no bound",
    "waiting": "no reply",
}
"""Why a kill waits for a region."""

Look = Callable[[], Awaitable["HoldView"]]
"""Reads the present view of a hold."""


async def follow(
    settings: Settings,
    statuses: AsyncIterator[HoldStatus],
    hold_id: bytes,
    look: Look | None = None,
    placed: HoldStatus | None = None,
    others: Callable[[], Awaitable[OtherHolds]] | None = None,
    *,
    lifts: bool = False,
) -> int:
    """Show a hold's table while it fills. Return 0 only if the hold is complete or lifted.

    With ``look``, also show the hold's issuer, time and reason. ``placed`` is the status at the
    placement, if no later one comes in time; ``others`` returns the holds that were on the target
    before. With ``lifts``, a lift has to be complete, too.
    """
    live = not settings.json and is_terminal(sys.stdout)
    seen = await (_fill(statuses) if live else _wait(settings, statuses, lifts=lifts))
    last = seen or placed
    if last is None:
        raise Problem(
            Exit.UNAVAILABLE,
            "unavailable",
            f"no region returned the status of hold {hold_id.hex()}",
            f"it may be in force: `kcm hold show {hold_id.hex()}`",
        )
    view = None if look is None else await look()
    before = {} if others is None else (await others()).told(settings)
    present(settings, last, view, before, filled=live and seen is not None)
    if last.complete or (last.lifted and not lifts):
        note(settings, verdict(last), hold_id=hold_id, complete=last.complete, lifted=last.lifted)
        return Exit.OK
    missing = f"{_in_force(last)}, but not every instance has confirmed: {_waited_for(last)}"
    raise Problem(
        Exit.NOT_COMPLETE, "not_complete", verdict(last) if last.lifted else missing,
        f"`kcm hold show {hold_id.hex()} --wait 60` continues to watch",
    )  # fmt: skip


async def _fill(statuses: AsyncIterator[HoldStatus]) -> HoldStatus | None:
    """Show a live table on the terminal; return the last status."""
    from rich.console import Console
    from rich.live import Live

    last: HoldStatus | None = None
    console = Console(file=sys.stdout)
    with Live(console=console, auto_refresh=False) as live:
        async for status in statuses:
            live.update(_picture(status, console.width), refresh=True)
            last = status
    return last


async def _wait(
    settings: Settings, statuses: AsyncIterator[HoldStatus], *, lifts: bool
) -> HoldStatus | None:
    """Return the last status; report once what the command waits for, after ``TELL_S``."""
    clock = settings.around.clock
    last: HoldStatus | None = None
    told, since = False, clock.elapsed()
    async for status in statuses:
        last = status
        ended = status.complete or (status.lifted and not lifts)
        if not told and not ended and clock.elapsed() - since >= TELL_S:
            told = True
            note(settings, verdict(status), waiting_for=waiting_for(status))
    return last


def present(
    settings: Settings,
    status: HoldStatus,
    view: HoldView | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
    *,
    filled: bool = False,
) -> None:
    """Show a hold and its status, and as JSON ``more``.

    ``filled``: the table is on the screen already.
    """
    if view is not None and not settings.json:
        emit(settings, None, ("hold", view.hold_id.hex()), _described(view))
    if settings.json or not filled:
        value = {} if view is None else about(view)
        columns, lines = (LIFT_COLUMNS, _lift_rows(status)) if status.lifted else (
            COLUMNS, rows(status),
        )  # fmt: skip
        emit(settings, {**value, **dict(vars(status)), **more}, columns, lines)
    if not settings.json:
        if view is not None and status.lifted and status.incarnations:
            emit(settings, None, COLUMNS, _incarnation_rows(status.incarnations))
        _tell_result(settings, status)


def _tell_result(settings: Settings, status: HoldStatus) -> None:
    """Report which Core concluded a kill, and why its result is not stored. JSON has fields."""
    one = status.concluded
    if one is not None:
        left_out = f", {one.left_out} more did not fit" if one.left_out else ""
        note(
            settings,
            f"the kill was concluded by {one.instance} at {moment(one.concluded_ms)} UTC, with "
            f"{counted(one.receipts, 'signed receipt')}{left_out}",
        )
    if status.unstored:
        note(settings, f"the result of the kill is not stored: {status.unstored}")


def about(view: HoldView) -> dict[str, object]:
    """Return the fields of a hold for JSON."""
    fields = {name: value for name, value in vars(view).items() if name != "raw"}
    lifted = moment(view.lifted_ms) if view.lifted else None
    return {**fields, "issued_utc": moment(view.issued_ms), "lifted_utc": lifted}


def described_briefly(view: HoldView) -> str:
    """Return the fields of a hold in one line."""
    on = f"hold {view.hold_id.hex()[:SHOWN]} on {view.scope} {view.target}"
    since = f"since {moment(view.issued_ms)} by {view.issuer}"
    return f"{on}, {since}, cause {view.cause}: {view.reason or '-'}"


def _described(view: HoldView) -> list[tuple[str, object]]:
    """Return the rows that describe a hold."""
    told: list[tuple[str, object]] = [
        ("on", f"{view.scope} {view.target}"),
        ("cause", view.cause),
        ("by", view.issuer),
        ("through", f"region {view.origin}"),
        ("since (UTC)", moment(view.issued_ms)),
        ("reason", view.reason or "none given"),
        ("state", "lifted" if view.lifted else "held"),
    ]
    if view.lifted:
        told += [
            ("lifted by", view.lifted_by),
            ("lifted (UTC)", moment(view.lifted_ms)),
            ("lift's reason", view.lift_reason or "none given"),
        ]
    return told


def rows(status: HoldStatus) -> list[tuple[object, ...]]:
    """Return a hold's table: every region, and every instance that may have held a key."""
    table_rows: list[tuple[object, ...]] = []
    for region in sorted(status.regions, key=lambda entry: entry.region):
        table_rows.append((region.region, "-", "-", _region_state(region), "", "", ""))
        table_rows += _incarnation_rows(
            incarnation
            for incarnation in status.incarnations
            if incarnation.region == region.region
        )
    return table_rows


def _incarnation_rows(incarnations: Iterable[IncarnationStatus]) -> list[tuple[object, ...]]:
    """Return the rows of instances, by region and name."""
    return [
        (
            incarnation.region,
            incarnation.instance,
            incarnation.role.value,
            _state(incarnation),
            incarnation.keys,
            f"{incarnation.purge_us} µs" if incarnation.how == "receipt" else "",
            f"{incarnation.after_ms} ms" if incarnation.how == "receipt" else "",
        )
        for incarnation in sorted(incarnations, key=lambda entry: (entry.region, entry.instance))
    ]


LIFT_COLUMNS: Final = ("region", "lift")


def _lift_rows(status: HoldStatus) -> list[tuple[object, ...]]:
    """Return a lift's table: the regions, and whether they have it."""
    return [
        (region.region, REGION_STATES[region.how])
        for region in sorted(status.regions, key=lambda entry: entry.region)
    ]


def _picture(status: HoldStatus, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    columns, lines = (LIFT_COLUMNS, _lift_rows(status)) if status.lifted else (
        COLUMNS, rows(status),
    )  # fmt: skip
    return Group(laid_out(columns, lines, width), Text(verdict(status)))


def verdict(status: HoldStatus) -> str:
    """Return the status of a hold in one line."""
    if status.lifted:
        missing = [region.region for region in status.regions if region.how != "durable"]
        done = [region.region for region in status.regions if region.how == "durable"]
        if missing:
            where = f" in {_names(done)}" if done else ""
            return (
                f"lifted{where}; not confirmed yet by {_names(missing)}, where the hold may be in "
                "force until the lift arrives from the other regions"
            )
        return f"lifted in {_names(done)}"
    if not status.complete:
        return f"under way: {_waited_for(status)}"
    silent = [
        _called(incarnation)
        for incarnation in status.incarnations
        if incarnation.how == "lease-ended"
    ]
    silent += [region.region for region in status.regions if region.how == "leases-ended"]
    if silent:
        return f"complete: {_names(silent)} did not reply, but cannot serve without a lease"
    return "complete: every registered instance has purged"


def waiting_for(status: HoldStatus) -> list[str]:
    """Return the regions and instances that a kill waits for, with reason and bound."""
    by_reason: dict[str, list[str]] = {}
    for region in sorted(status.regions, key=lambda entry: entry.region):
        if region.how in WHY:
            reason = WHY[region.how] + _at_most(region.left_ms)
            by_reason.setdefault(reason, []).append(region.region)
    regions = [
        f"region{'s' if len(names) > 1 else ''} {_names(names)} ({reason})"
        for reason, names in by_reason.items()
    ]
    return regions + [
        _instance(incarnation)
        for incarnation in status.incarnations
        if incarnation.how == "waiting"
    ]


def _in_force(status: HoldStatus) -> str:
    """Return a text with the regions that have stored a hold."""
    stored = sorted(region.region for region in status.regions if region.durable_at)
    return f"the hold is in force in {_names(stored)}" if stored else "the hold is in force"


def _waited_for(status: HoldStatus) -> str:
    return f"waiting for {_names(waiting_for(status), separator='; ')}"


def _instance(incarnation: IncarnationStatus) -> str:
    """Describe an instance that the kill waits for."""
    if incarnation.trouble:
        return f"{_called(incarnation)} {CANNOT_STORE}: {clean(incarnation.trouble)}"
    if incarnation.retired:
        left = _at_most(incarnation.left_ms)
        return f"{incarnation.instance} (retired: until its lease ends{left})"
    bound = (
        f"; at most {_seconds(incarnation.left_ms)} if it is down" if incarnation.left_ms else ""
    )
    return f"{_called(incarnation)} (no receipt yet{bound})"


def _called(incarnation: IncarnationStatus) -> str:
    return f"{incarnation.instance} (retired)" if incarnation.retired else incarnation.instance


def _names(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - NAMED_MAX
    return separator.join(names[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _at_most(left_ms: int) -> str:
    return f"; at most {_seconds(left_ms)}" if left_ms else ""


def _seconds(left_ms: int) -> str:
    return f"{-(-left_ms // 1000)} s"


def _region_state(region: RegionStatus) -> str:
    """Return the state of a region, and the maximum time of waiting for it."""
    return REGION_STATES[region.how] + _at_most(region.left_ms)


def _state(incarnation: IncarnationStatus) -> str:
    """Return the state of an instance."""
    state: str = incarnation.how
    if incarnation.how == "waiting" and incarnation.trouble:
        state = f"waiting: {CANNOT_STORE}: {clean(incarnation.trouble)}"
    elif incarnation.how == "waiting":
        state += _at_most(incarnation.left_ms)
    return f"{state} (retired)" if incarnation.retired else state
