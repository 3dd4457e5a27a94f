"""Entries of the region's stream that can never count: they expire, which is reported."""

from __future__ import annotations

import logging
from typing import Final

from kcm_runtime.audit.pacing import Paced
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_schemas import subjects
from kcm_schemas.audit import EventType

from kcm_killswitch.replica.entry_expiry import EntryExpiry

log = logging.getLogger(__name__)


class InvalidEntries:
    """Lets invalid entries expire, and states at a bounded rate how many did."""

    def __init__(self, host: Host, *, stream: StreamLog) -> None:
        self._emit: Final = host.emit
        self._reports: Final = Paced()
        self._expiry: Final = EntryExpiry(host, stream=stream, done=self._cleared)

    def clear(self, entry: Entry) -> None:
        """Let an entry expire, if this is a Core."""
        self._expiry.clear(entry)

    def close(self) -> None:
        """Stop clearing, and emit what is only counted so far."""
        self._expiry.close()
        self._reports.close()

    def _cleared(self, count: int) -> None:
        if count:
            self._reports.record("cleared", self._report, count)

    def _report(self, count: int) -> None:
        log.warning(
            "%d entries of the region's stream, which were no statements, expire",
            count,
            extra=fields(stream=subjects.CONTROL_STREAM, count=count),
        )
        detail = "entries of the control stream that were no statements"
        self._emit(EventType.STREAM_CLEARED, count=count, detail=detail)
