"""Events of an Auditor's journal, verified and shown: one line for each event."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kcm.cli.hold_progress import SHOWN
from kcm.cli.output import moment, plain

if TYPE_CHECKING:
    from kcm_schemas.auditor import TailEntry
    from kcm_trust.verify import Verifier

LOOK: Final = re.compile(r"admin\.[a-z0-9]+-(list|find|show|status|preview|export|signed|listed)")
"""Types of the audit events of operators' requests that change nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event as its emitter signed it, or an incident that the Auditor reported."""

    seq: int
    time_ms: int
    region: str
    emitter: str
    actor: str | None
    """The signer of the request; ``None`` if the emitter acted by itself."""
    event: str
    subject: str
    """Tenant and service."""
    target: str
    """The object of the event, if it is not tenant and service."""
    hold: str
    """The hold's id, in hexadecimal digits."""
    code: str
    count: int
    failed: int
    detail: str

    @property
    def is_look(self) -> bool:
        """Whether the event is of a request that reads and changes nothing."""
        return self.event == "audit.read" or bool(LOOK.fullmatch(self.event))

    @property
    def about(self) -> str:
        """The object of the event, and the first digits of a hold's id."""
        hold = f"hold {self.hold[:SHOWN]}" if self.hold else ""
        return " ".join(part for part in (self.target or self.subject, hold) if part)

    @property
    def text(self) -> str:
        """The event as one line of text."""
        bad = f" ({self.failed} bad)" if self.failed else ""
        return (
            f"{moment(self.time_ms)}  {self.emitter:<20} {self.actor or '-':<12} {self.event:<18} "
            f"{self.about or '-':<24} {self.code or '-':<14} {self.count}{bad}  {self.detail}"
        ).rstrip()


def of_entry(verifier: Verifier, entry: TailEntry) -> list[Line]:
    """Return an entry's events. If its signature is not valid, one line says so."""
    from kcm_trust.verify import Untrusted

    lines = []
    if entry.incident:
        lines.append(_incident(entry, f"incident: {entry.incident}", entry.detail))
    if entry.statement and not entry.incident:
        try:
            lines += _events(verifier, entry)
        except Untrusted as error:
            lines.append(_incident(entry, "not trusted", str(error)))
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


def as_json(line: Line) -> dict[str, Any]:
    """Return a line as an object for JSON."""
    return {**plain(line), "time_utc": moment(line.time_ms)}
