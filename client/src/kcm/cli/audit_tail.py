"""``kcm audit tail``: show the last events of a journal, and follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from kcm.cli.audit import audit, auditor_region
from kcm.cli.audit_lines import Line, as_json, of_entry
from kcm.cli.error_report import clean
from kcm.cli.output import emit, note, say
from kcm.cli.settings import Settings, common, region_option, run_async

if TYPE_CHECKING:
    from kcm_schemas.auditor import TailEntry

    from kcm._internal.admin import Admin

POLL_S: Final = 1.0
"""Seconds between two looks at the journal while following it."""

PAGE_ENTRIES: Final = 256
"""Entries per request: the most that an Auditor returns."""

PAGES_MAX: Final = 64
"""Pages searched for the last events."""


@audit.command("tail")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Show new events until interrupted.")
@click.option(
    "--after", metavar="SEQ", type=click.IntRange(min=0), help="With -f: begin after this entry."
)
@click.option("--all", "everything", is_flag=True, help="Heartbeats and your own reads, too.")
@region_option
@common
def tail(
    settings: Settings,
    number: int,
    after: int | None,
    region: str | None,
    *,
    follow: bool,
    everything: bool,
) -> None:
    """Show the last events.

    With -f the command continues, also while the Auditor restarts or cannot be reached. With
    -o json each line has the number of its entry as `seq`; --after SEQ resumes after that entry.

    This command verifies each event's signature by its emitter. It does not trust the Auditor.

    The columns are: time (UTC), emitter, signer of the request (- if none), event, tenant and
    service or other object, result, count, details.

    Example: kcm audit tail -n 50 -f
    """
    if after is not None and not follow:
        raise click.UsageError("--after goes with -f")
    run_async(_tail(settings, number, after, region, follow=follow, everything=everything))


async def _tail(
    settings: Settings,
    number: int,
    after: int | None,
    region: str | None,
    *,
    follow: bool,
    everything: bool,
) -> None:
    context = settings.context()
    admin = settings.admin(context)

    def wanted(line: Line) -> bool:
        own = line.is_look and line.actor == admin.identity.name
        return everything or not (own or line.event == "instance.alive")

    try:
        place = auditor_region(admin, context, region)
        seen = after or 0
        if after is None:
            lines, seen = await _last(admin, place, number, wanted)
            if settings.json and not follow:
                emit(settings, [as_json(line) for line in lines], (), ())
            else:
                _say(settings, lines)
        if follow:
            await _follow(settings, admin, place, seen, wanted)
    finally:
        await admin.close()


async def _follow(
    settings: Settings, admin: Admin, region: str, seen: int, wanted: Callable[[Line], bool]
) -> None:
    """Show events after entry ``seen``; wait while the Auditor is away, for example restarted."""
    from kcm.errors import ServiceError

    away = False
    while True:
        try:
            fresh, seen = await _since(settings, admin, region, seen)
        except ServiceError as error:
            if not error.retryable:
                raise
            if not away:
                text = f"the Auditor does not reply: {error.detail}; resuming after entry {seen}"
                note(settings, text, detail=text, seen=seen, error=error.code.value)
            away = True
        else:
            if away:
                text = "the Auditor replies again"
                note(settings, text, detail=text, seen=seen)
            away = False
            _say(settings, [line for line in fresh if wanted(line)])
        await settings.around.sleep(POLL_S)


async def _last(
    admin: Admin, region: str, number: int, wanted: Callable[[Line], bool]
) -> tuple[list[Line], int]:
    """Return the last ``number`` wanted events, and the last entry that was read."""
    lines: list[Line] = []
    before = newest = 0
    for _ in range(PAGES_MAX):
        page = await admin.audit_tail(region, limit=PAGE_ENTRIES, before=before)
        if not page.entries:
            break
        newest = newest or page.entries[-1].seq
        found = [line for entry in page.entries for line in of_entry(admin.verifier, entry)]
        lines = [line for line in found if wanted(line)] + lines
        before = page.entries[0].seq
        if len(lines) >= number or before <= max(page.oldest, 1):
            break
    return lines[-number:], newest


async def _since(
    settings: Settings, admin: Admin, region: str, seen: int
) -> tuple[list[Line], int]:
    """Return the events after entry ``seen``, and the last entry that was read."""
    entries: list[TailEntry] = []
    before = 0
    while True:
        page = await admin.audit_tail(region, limit=PAGE_ENTRIES, before=before)
        if not before and page.entries and page.entries[-1].seq < seen:
            text = f"the journal ends before entry {seen}: it is another one, or it was truncated"
            text = f"{text}; showing all of it"
            note(settings, text, detail=text, seen=seen)
            seen = 0
        fresh = [entry for entry in page.entries if entry.seq > seen]
        entries = fresh + entries
        if not fresh or len(fresh) < len(page.entries):
            break
        before = fresh[0].seq
        if before <= page.oldest:
            if page.oldest > seen + 1:
                text = f"entries {seen + 1} to {page.oldest - 1} are only in the journal's files"
                note(settings, text, detail=text, first=seen + 1, last=page.oldest - 1)
            break
    lines = [line for entry in entries for line in of_entry(admin.verifier, entry)]
    return lines, entries[-1].seq if entries else seen


def _say(settings: Settings, lines: Sequence[Line]) -> None:
    """Print one line for each event."""
    import json

    for line in lines:
        text = json.dumps(as_json(line)) if settings.json else clean(line.text)
        say(text + "\n")
