"""``kcm audit``: follow what happens, and check a journal offline."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli.error_report import Problem, clean
from kcm.cli.kill import SHOWN
from kcm.cli.output import emit, moment, note, plain, say
from kcm.cli.settings import Settings, common, region_option, run_async
from kcm.cli.streams import tell
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.auditor import AuditorStatus, FollowedRegion, TailEntry
    from kcm_trust.verify import Verifier

    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext

POLL_S: Final = 1.0
"""Seconds between two looks at the journal while following it."""

FILLING: Final = 0.70
"""Share of an audit stream's room from which its Cores, and this command, warn."""

NEARLY_FULL: Final = 0.90
"""Share from which they warn again."""

PAGE_ENTRIES: Final = 256
"""Entries asked for at once: what an Auditor gives at most."""

ANCHOR: Final = re.compile(r"[0-9]{1,20}:[0-9a-fA-F]{64}")
"""A head as it is shown. What is shorter is a slip, and would be called an unsound journal."""

LOOK: Final = re.compile(r"admin\.[a-z0-9]+-(list|find|show|status|preview|export|signed|listed)")
"""Operators' requests that change nothing, as Cores record them."""

PAGES_MAX: Final = 64
"""Pages looked through for the last events."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event as its emitter signed it, or an incident that the Auditor noticed."""

    seq: int
    time_ms: int
    region: str
    emitter: str
    actor: str | None
    """Who asked for it; none where the emitter did it by itself."""
    event: str
    subject: str
    """Whose it is: tenant and service."""
    target: str
    """What it is about, where that is something else."""
    hold: str
    """The hold's id, in hexadecimal digits."""
    code: str
    count: int
    failed: int
    detail: str

    @property
    def is_look(self) -> bool:
        """Whether somebody looked at something, and changed nothing."""
        return self.event == "audit.read" or bool(LOOK.fullmatch(self.event))

    @property
    def about(self) -> str:
        """What it is about, and the first digits of a hold's id."""
        hold = f"hold {self.hold[:SHOWN]}" if self.hold else ""
        return " ".join(part for part in (self.target or self.subject, hold) if part)

    @property
    def text(self) -> str:
        """As one line for a person."""
        bad = f" ({self.failed} bad)" if self.failed else ""
        return (
            f"{moment(self.time_ms)}  {self.emitter:<20} {self.actor or '-':<12} {self.event:<18} "
            f"{self.about or '-':<24} {self.code or '-':<14} {self.count}{bad}  {self.detail}"
        ).rstrip()


@click.group()
def audit() -> None:
    """The record of everything that happens."""


@audit.command("tail")
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option(
    "--after", metavar="SEQ", type=click.IntRange(min=0), help="Begin behind this entry, with -f."
)
@click.option("--all", "everything", is_flag=True, help="Signs of life and your own looks too.")
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

    With -f it goes on, also when the Auditor is restarted or cannot be reached for a while. With
    -o json each line has the number of its entry as `seq`: --after goes on behind it, once this
    command was ended.

    Each is verified here against its emitter's signature: the Auditor need not be believed.

    A line has: when (UTC), who recorded it, who asked for it (- where nobody did), what, whose
    keys, how it ended, how many, and more.

    Example: kcm audit tail -n 50 -f
    """
    if after is not None and not follow:
        raise click.UsageError("--after goes with -f")
    run_async(_tail(settings, number, after, region, follow=follow, everything=everything))


@audit.command("status")
@region_option
@common
def status(settings: Settings, region: str | None) -> int:
    """Show how full each region's audit stream is.

    And how far an Auditor has it.

    Exits with 7 when entries are lost: trimmed from a stream and missing in the Auditor's journal.

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
    """What is to be said first of a region's stream."""
    if not entry.reachable:
        return "unreachable"
    return "entries lost" if entry.lost_last else "followed"


def trimmed_of(entry: FollowedRegion) -> str:
    """Up to where the stream was emptied, and on how many Auditors' word."""
    return f"{entry.trimmed} ({entry.witnesses} have it)" if entry.trimmed else ""


def used_of(entry: FollowedRegion) -> str:
    """How full the stream is."""
    if not entry.room:
        return f"{entry.used} bytes, no bound"
    return f"{entry.used * 100 // entry.room} % of {entry.room >> 20} MiB"


def warning_of(entry: FollowedRegion) -> str:
    """What an operator should do something about; empty when there is nothing."""
    if entry.lost_last:
        return (
            f"messages {entry.lost_first} to {entry.lost_last} were trimmed and are not in this "
            "Auditor's journal, so it signs nothing: see docs/audit.md"
        )
    if not entry.room:
        return "the stream has no bound and can take the room of the control stream"
    share = entry.used / entry.room
    if share >= NEARLY_FULL:
        return "the stream is nearly full; when it is full, data requests are refused"
    return "the stream is filling: see why it is not trimmed" if share >= FILLING else ""


@audit.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The Auditor's configuration: checks signatures.",
)
@click.option("--anchor", metavar="SEQ:HASH", help="A head that was kept elsewhere.")
@common
def verify(settings: Settings, directory: str, config: str | None, anchor: str | None) -> int:
    """Check a journal's DIRECTORY offline.

    Nothing in it was changed, left out or put in. Exit code 7 when it is not sound.

    Example: kcm audit verify ~/.local/state/kcm/dev/journal
    """
    if anchor is not None and not ANCHOR.fullmatch(anchor):
        text = (
            "--anchor takes an entry's number and its hash of 64 hexadecimal digits, as in 5:9f..."
        )
        raise Problem(Exit.USAGE, "usage", text, "`kcm audit verify` shows one as head: keep that")
    # A process of its own: the client never imports a service.
    command = [sys.executable, "-m", "kcm_auditor", "--verify", directory]
    command += ["--config", config] if config else []
    command += ["--anchor", anchor] if anchor else []
    command += ["--json"] if settings.json_wanted else []
    if not _installed():
        text = "the Auditor is not installed here"
        raise Problem(Exit.USAGE, "usage", text, "pip install 'kcm[dev]'")
    done = subprocess.run(
        command, check=False, stderr=subprocess.PIPE, text=True, errors="backslashreplace"
    )
    return _ended(done.returncode, done.stderr)


def _ended(code: int, said: str) -> int:
    """What came of a check by another process, which wrote its result, and ``said`` the rest."""
    told = said.strip().rpartition("\n")[2].rpartition(" ERROR ")[2]
    if code == 2:
        raise Problem(Exit.USAGE, "config", told, "--config takes the Auditor's configuration")
    if code not in {0, 1} or "Traceback" in said:
        raise Problem(Exit.FAULT, "fault", "the check ended before its end, and says nothing")
    if told:
        tell(clean(told))
    return Exit.CHECK_FAILED if code else Exit.OK


def _installed() -> bool:
    return any((Path(entry) / "kcm_auditor" / "__main__.py").exists() for entry in sys.path)


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
        place = _auditor_region(admin, context, region)
        seen = after or 0
        if after is None:
            lines, seen = await _last(admin, place, number, wanted)
            if settings.json and not follow:
                emit(settings, [_json(line) for line in lines], (), ())
            else:
                _say(settings, lines)
        if follow:
            await _follow(settings, admin, place, seen, wanted)
    finally:
        await admin.close()


async def _follow(
    settings: Settings, admin: Admin, region: str, seen: int, wanted: Callable[[Line], bool]
) -> None:
    """Show what comes behind entry ``seen``; what passes (an Auditor's restart) is waited for."""
    from kcm.errors import ServiceError

    away = False
    while True:
        try:
            fresh, seen = await _since(settings, admin, region, seen)
        except ServiceError as error:
            if not error.retryable:
                raise
            if not away:
                text = f"the Auditor does not answer: {error.detail}; going on behind entry {seen}"
                note(settings, text, detail=text, seen=seen, error=error.code.value)
            away = True
        else:
            if away:
                text = "the Auditor answers again"
                note(settings, text, detail=text, seen=seen)
            away = False
            _say(settings, [line for line in fresh if wanted(line)])
        await settings.around.sleep(POLL_S)


async def _status(settings: Settings, region: str | None) -> AuditorStatus:
    context = settings.context()
    admin = settings.admin(context)
    try:
        return await admin.audit_status(_auditor_region(admin, context, region))
    finally:
        await admin.close()


def _auditor_region(admin: Admin, context: ClientContext, region: str | None) -> str:
    """Where an Auditor of the roster answers: the region asked for, or the first that has one."""
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


async def _last(
    admin: Admin, region: str, number: int, wanted: Callable[[Line], bool]
) -> tuple[list[Line], int]:
    """The last ``number`` wanted events, and the entry up to which the journal was read."""
    lines: list[Line] = []
    before = newest = 0
    for _ in range(PAGES_MAX):
        page = await admin.audit_tail(region, limit=PAGE_ENTRIES, before=before)
        if not page.entries:
            break
        newest = newest or page.entries[-1].seq
        found = [line for entry in page.entries for line in _of_entry(admin.verifier, entry)]
        lines = [line for line in found if wanted(line)] + lines
        before = page.entries[0].seq
        if len(lines) >= number or before <= max(page.oldest, 1):
            break
    return lines[-number:], newest


async def _since(
    settings: Settings, admin: Admin, region: str, seen: int
) -> tuple[list[Line], int]:
    """Events after entry ``seen``, and the entry up to which the journal was read now."""
    entries: list[TailEntry] = []
    before = 0
    while True:
        page = await admin.audit_tail(region, limit=PAGE_ENTRIES, before=before)
        if not before and page.entries and page.entries[-1].seq < seen:
            text = f"the journal ends before entry {seen}: it is another one, or it was cut"
            text = f"{text}; all that it has is shown"
            note(settings, text, detail=text, seen=seen)
            seen = 0
        fresh = [entry for entry in page.entries if entry.seq > seen]
        entries = fresh + entries
        if not fresh or len(fresh) < len(page.entries):
            break
        before = fresh[0].seq
        if before <= page.oldest:
            if page.oldest > seen + 1:
                behind = f"entries {seen + 1} to {page.oldest - 1} are in the journal's files alone"
                note(settings, behind, detail=behind, first=seen + 1, last=page.oldest - 1)
            break
    lines = [line for entry in entries for line in _of_entry(admin.verifier, entry)]
    return lines, entries[-1].seq if entries else seen


def _of_entry(verifier: Verifier, entry: TailEntry) -> list[Line]:
    """An entry's events; what its emitter did not sign is shown as not believed."""
    from kcm_trust.verify import Untrusted

    lines = []
    if entry.incident:
        lines.append(_incident(entry, f"incident: {entry.incident}", entry.detail))
    if entry.statement and not entry.incident:
        try:
            lines += _events(verifier, entry)
        except Untrusted as error:
            lines.append(_incident(entry, "not believed", str(error)))
    return lines


def _events(verifier: Verifier, entry: TailEntry) -> list[Line]:
    from kcm_schemas.audit import AuditEvent
    from kcm_schemas.codec import decode
    from kcm_schemas.codes import KcmError

    batch = verifier.audit(entry.statement)
    lines = []
    for raw in batch.events:
        try:
            event = decode(AuditEvent, raw)
        except KcmError:
            lines.append(_incident(entry, "not understood", "an event of another version"))
            continue
        lines.append(
            Line(
                seq=entry.seq,
                time_ms=event.time_ms,
                region=batch.region,
                emitter=batch.emitter,
                actor=event.actor,
                event=event.type,
                subject="/".join(part for part in (event.tenant, event.service) if part),
                target=event.target,
                hold=event.hold.hex() if event.hold else "",
                code=event.code.value,
                count=event.count,
                failed=event.failed,
                detail=event.detail,
            )
        )
    return lines


def _incident(entry: TailEntry, event: str, detail: str) -> Line:
    return Line(
        seq=entry.seq,
        time_ms=entry.time_ms,
        region=entry.region or "",
        emitter="auditor",
        actor=None,
        event=event,
        subject="",
        target="",
        hold="",
        code="",
        count=0,
        failed=0,
        detail=detail,
    )


def _json(line: Line) -> dict[str, Any]:
    return {**plain(line), "time_utc": moment(line.time_ms)}


def _say(settings: Settings, lines: Sequence[Line]) -> None:
    """One event on one line, as it comes."""
    import json

    for line in lines:
        text = json.dumps(_json(line)) if settings.json else clean(line.text)
        say(text + "\n")
