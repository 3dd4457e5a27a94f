"""Whether the broker stores messages: the trouble of each stream, reported when it changes.

Two faults look like an outage and do not pass by themselves:

- **full**: the server reports that a limit of the server, the account or the stream is reached.
- **silent**: the server answers and does not acknowledge. After a failed write to its disk, a
  stream acknowledges nothing until the server restarts, even if space was freed; other streams of
  the same server continue. A server without a majority does the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from kcm_schemas import subjects

from kcm_runtime.logs import fields

log = logging.getLogger(__name__)

SILENT_AFTER: Final = 3
"""Consecutive writes of one stream without acknowledgement: one or two are an election."""


class Trouble(StrEnum):
    """Why a stream is not written."""

    FULL = "full"
    SILENT = "silent"


CAUSE: Final = {
    Trouble.FULL: (
        "the broker's store is full (its disk, or a limit of server, account or stream): free "
        "space or raise the limit, then restart nats-server; it does not recover by itself"
    ),
    Trouble.SILENT: (
        "the broker answers and does not acknowledge: it has no majority, or its disk was full or "
        "failed; then free space and restart nats-server, because it does not recover by itself"
    ),
}
"""The problem and the remedy, for an answer and for the log."""

OnChange = Callable[[str, Trouble | None], None]
"""Called with a stream and its trouble, or ``None``, whenever that changes."""


class Stores:
    """The state of the streams to which one connection writes."""

    def __init__(self) -> None:
        self._troubles: dict[str, Trouble] = {}
        self._silent: dict[str, int] = {}
        self._listeners: list[OnChange] = []

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` at every change."""
        self._listeners.append(on_change)

    @property
    def troubles(self) -> dict[str, Trouble]:
        """The trouble of each stream; empty if there is none."""
        return dict(self._troubles)

    def stored(self, subject: str) -> None:
        """Note that a write was acknowledged, or rejected for its content: the stream works."""
        stream = stream_of(subject)
        self._silent.pop(stream, None)
        if self._troubles.pop(stream, None) is not None:
            log.warning("the stream is stored again", extra=fields(stream=stream))
            self._tell(stream, None)

    def full(self, subject: str) -> None:
        """Note that the broker reports no room."""
        self._note(stream_of(subject), Trouble.FULL)

    def silent(self, subject: str) -> bool:
        """Note a write without acknowledgement while connected; returns whether that persists."""
        stream = stream_of(subject)
        self._silent[stream] = self._silent.get(stream, 0) + 1
        if self._silent[stream] >= SILENT_AFTER:
            self._note(stream, Trouble.SILENT)
        return self._silent[stream] >= SILENT_AFTER

    def _note(self, stream: str, trouble: Trouble) -> None:
        if self._troubles.get(stream) is not trouble:
            self._troubles[stream] = trouble
            log.error("the stream is not stored: %s", CAUSE[trouble], extra=fields(stream=stream))
            self._tell(stream, trouble)

    def _tell(self, stream: str, trouble: Trouble | None) -> None:
        for on_change in self._listeners:
            on_change(stream, trouble)


def stream_of(subject: str) -> str:
    """Return the stream that stores a subject."""
    first, _, rest = subject.partition(".")
    if first == "$KV":
        return subjects.bucket_stream(rest.partition(".")[0])
    return subjects.AUDIT_STREAM if ".audit." in subject else subjects.CONTROL_STREAM
