"""The plan of a retirement: what NAME signed, what of it still counts, and the next roster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kcm.cli.core_state import LACKED
from kcm.cli.error_report import Problem
from kcm.cli.settings import Settings
from kcm.cli.wait_notice import asking
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.roster import Roster
    from kcm_trust.endorsements import Endorsements

    from kcm._internal.admin import Admin
    from kcm.ops.roster_changes import Found


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments of a retirement."""

    name: str
    key: Path | None
    without: Sequence[str]
    before_ms: int | None
    leave_out: Sequence[str]
    dry_run: bool
    prepare: Path | None
    yes: bool

    @property
    def changes(self) -> bool:
        """Whether the regions get a new roster."""
        return not self.dry_run and self.prepare is None


@dataclass(frozen=True, slots=True)
class Plan:
    """A retirement that was not sent yet: what NAME signed, the next roster, and its lists.

    ``missing`` are the regions on the roster that the context lacks.
    """

    found: Sequence[Found]
    new: Roster
    lists: Mapping[str, Endorsements]
    missing: Sequence[str]

    @property
    def endorsed(self) -> int:
        """The number of statements that still count."""
        return sum(one.endorsed for one in self.found)

    @property
    def content(self) -> tuple[int, dict[str, bytes]]:
        """The version of the next roster, and the digests that its lists have."""
        return self.new.version, {name: one.raw() for name, one in self.lists.items()}

    @property
    def left_out(self) -> int:
        """The number of statements that do not count any more."""
        return len(self.found) - self.endorsed


async def make_plan(settings: Settings, order: Order) -> Plan:
    """Collect what NAME signed, and make the next roster. Nothing is changed."""
    from kcm_trust.endorsements import Endorsements

    from kcm.cli.departure_impact import darkened
    from kcm.ops.roster_changes import Refused, highest, lacked, read_lists
    from kcm.ops.roster_changes import retire as next_roster

    context = settings.context()
    admin = settings.admin(context)
    try:
        _check_regions(admin, order.without)
        if admin.identity.name == order.name:
            raise Problem(
                Exit.REFUSED, "forbidden", "you cannot retire yourself", "ask another operator to"
            )
        regions = [one for one in context.in_order(None) if one not in order.without]
        with asking(settings, "the roster", regions) as answered:
            _, known = await highest(admin, regions, answered)
        # Refuse a mistyped name before any region is asked for statements.
        next_roster(known, order.name, Endorsements(), known.issued_ms)
        missing = lacked(context, known)
        found = await _signed(settings, admin, order, regions, missing)
        endorsements = Endorsements(one.digest for one in found if one.endorsed)
        new = next_roster(known, order.name, endorsements, settings.around.clock.unix_ms())
        with asking(settings, "what stops counting", regions):
            found = await darkened(admin, order.name, found)
        lists = read_lists(context.roster_path, known) | {order.name: endorsements}
        return Plan(found, new, lists, missing)
    except Refused as error:
        raise Problem(Exit.REFUSED, "refused", f"{order.name}: {error}", error.hint) from None
    finally:
        await admin.close()


async def _signed(
    settings: Settings,
    admin: Admin,
    order: Order,
    regions: Sequence[str],
    missing: Sequence[str],
) -> list[Found]:
    """Collect what NAME signed, marked as endorsed or left out; no region may be silent."""
    from kcm.ops.roster_changes import choose, collect

    if unheard := [one for one in missing if one not in order.without]:
        raise _silent(unheard, LACKED)
    with asking(settings, f"what {order.name} signed", regions) as answered:
        collected = await collect(admin, regions, order.name, answered)
    if collected.silent:
        raise _silent(list(collected.silent), str(next(iter(collected.silent.values()))))
    return choose(collected.found, order.before_ms, order.leave_out)


def _check_regions(admin: Admin, names: Sequence[str]) -> None:
    """Refuse a region that is neither in the context nor on the roster."""
    from kcm.ops.roster_changes import lacked

    others = lacked(admin.context, admin.verifier.roster)
    for name in names:
        if name not in others:
            admin.context.region(name)


def _silent(silent: Sequence[str], why: str) -> Problem:
    names = ", ".join(sorted(silent))
    retry = "use a context that has it" if why == LACKED else "try again"
    return Problem(
        Exit.UNAVAILABLE,
        "unavailable",
        f"region {names} does not report its statements: {why}",
        f"statements that only it has would not count any more: {retry}, or use --without REGION",
    )
