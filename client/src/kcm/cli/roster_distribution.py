"""The distribution of a roster: to every region, then into the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm.cli.core_state import LACKED
from kcm.cli.error_report import explain
from kcm.cli.output import advise, note
from kcm.cli.settings import Settings
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_trust.endorsements import Endorsements

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm.errors import ServiceError

Rows = list[dict[str, str]]

COLUMNS: Final = ("region", "result", "detail")
"""Of the table that shows which regions have a roster."""

NOT_KEPT: Final = "a region may have the new roster; this context does not have it yet"
"""What an interruption leaves while a roster is sent to the regions."""

SHOWS_IT: Final = "`kcm roster show` reads it from the regions"
"""The command to give then."""

STORED: Final = "stored"
"""The result of a region that has the roster."""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Regions that need not have a roster, and regions on it that the context lacks."""

    without: Sequence[str]
    lacked: Sequence[str]


async def distribute(
    settings: Settings,
    admin: Admin,
    raw: bytes,
    lists: Mapping[str, Endorsements],
    exceptions: Exceptions,
    report: Callable[[Rows], None],
) -> int:
    """Send a roster to every region and store it in the context; return the exit code.

    ``report`` gets one row for each region before the context's file is written, so a full disk
    does not hide the result.
    """
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
    ):  # a region may have the roster already: a second attempt needs it, and the lists
        _keep(settings, context, raw, lists)
        raise
    done = [region for region, error in results.items() if error is None]
    report(
        [_row(region, error) for region, error in results.items()]
        + [
            {"region": region, "result": "not_in_context", "detail": LACKED}
            for region in exceptions.lacked
        ]
    )
    if done:
        _keep(settings, context, raw, lists)
    for said, regions in _by_answer(results).items():
        note(settings, f"{', '.join(regions)}: {said}", regions=regions, error=said)
    for region in exceptions.lacked:
        note(settings, f"{region}: {LACKED}", regions=[region], error=LACKED)
    if not done:
        failed = [error for error in results.values() if error]
        advise(settings, explain(failed[0]).hint)
        passing = any(error.retryable for error in failed)
        return Exit.UNAVAILABLE if passing else Exit.REFUSED
    if [region for region in results if region not in {*done, *exceptions.without}]:
        advise(settings, "`kcm roster put FILE` with the context's roster sends it there")
        return Exit.PARTIAL
    if [region for region in exceptions.lacked if region not in exceptions.without]:
        advise(settings, "`kcm roster put FILE` with a context that has the region sends it there")
        return Exit.PARTIAL
    return Exit.OK


def _by_answer(results: Mapping[str, ServiceError | None]) -> dict[str, list[str]]:
    """Group the regions without the roster by the reason."""
    found: dict[str, list[str]] = {}
    for region, error in results.items():
        if error is not None:
            found.setdefault(str(error), []).append(region)
    return found


def _row(region: str, error: ServiceError | None) -> dict[str, str]:
    """Return the result of a region as a row."""
    if error is None:
        return {"region": region, "result": STORED, "detail": ""}
    return {"region": region, "result": error.code.value, "detail": error.detail}


def _keep(
    settings: Settings, context: ClientContext, raw: bytes, lists: Mapping[str, Endorsements]
) -> None:
    """Store a roster in the context, and report that from then on; raises ``OSError``."""
    from kcm.ops.roster_changes import keep

    keep(context, raw, lists)
    settings.leaves(
        "the roster may be in some regions only; this context has it now",
        f"`kcm roster put {context.roster_path}` sends it to every region",
    )
