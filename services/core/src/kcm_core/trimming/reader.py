"""Reads the audit stream: its chain and its positions, and nothing else. Pure except for the log.

No signature is verified here: the chain covers whatever the broker stores, and its meaning is the
Auditors' responsibility.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from kcm_runtime.audit.stream_chain import Marks, Place
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadState:
    """The position in a stream made at ``created`` (µs); ``marks`` are its older positions."""

    created: int
    place: Place
    marks: tuple[Place, ...]


class AuditReader:
    """A ``LogFollower`` that computes the chain. Without a base it ignores all messages."""

    def __init__(self, remembered: ReadState | None) -> None:
        self._created = remembered.created if remembered else 0
        self._place: Place | None = remembered.place if remembered else None
        self._marks = Marks(remembered.marks if remembered else ())

    @property
    def reading(self) -> ReadState | None:
        """The reading position; ``None`` while there is no base to continue from."""
        if self._place is None:
            return None
        return ReadState(self._created, self._place, self._marks.places)

    @property
    def places(self) -> tuple[Place, ...]:
        """The places at which digests are known."""
        return self._marks.places

    def begin(self, created: int, place: Place) -> None:
        """Continue from a place of a stream of which nothing else is known."""
        self._created, self._place = created, place
        self._marks = Marks()
        self._marks.note(place)

    def fits(self, created: int, first: int, last: int) -> bool:
        """Whether the reading can continue in a stream with these properties."""
        place = self._place
        return (
            place is not None and created == self._created and first - 1 <= place.sequence <= last
        )

    def forget(self) -> None:
        """Forget everything."""
        self._place = None
        self._marks = Marks()

    def trimmed(self, through: int) -> None:
        """The stream was emptied up to ``through``."""
        self._marks.drop(through)

    def anchor(self) -> int:
        """The last message that was processed."""
        return self._place.sequence if self._place is not None else 0

    def resumed(self, behind: int) -> None:
        """Do nothing: a repeated message is recognised by its sequence."""

    def went_back(self) -> None:
        """The stream was replaced, or is shorter."""
        self.forget()

    def receive(self, entry: Entry) -> None:
        """Process one message."""
        place = self._place
        if place is None or entry.sequence <= place.sequence:
            return
        if entry.sequence != place.sequence + 1:
            log.warning(
                "the audit stream has no messages %d to %d",
                place.sequence + 1,
                entry.sequence - 1,
                extra=fields(stream=subjects.AUDIT_STREAM),
            )
            self.forget()
            return
        self._place = place.append(entry.sequence, entry.subject, entry.data, entry.time_ms)
        self._marks.note(self._place)
