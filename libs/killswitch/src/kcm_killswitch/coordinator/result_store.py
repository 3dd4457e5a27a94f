"""The store for the results of finished kills in a region: one bucket entry for each hold.

Instances do not replay the bucket. A result is read when an operator asks for that kill.
"""

from __future__ import annotations

from typing import Final, Protocol

from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.provision import RESULTS
from kcm_runtime.nats.streams import keep, last
from kcm_schemas import subjects


class ResultStore(Protocol):
    """Keeps the last result that was written for each hold; raises ``KcmError``."""

    async def read(self, hold_id: bytes) -> Entry | None:
        """The stored entry of a hold, not yet verified; raises ``unavailable``."""
        ...

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """Store over revision ``expected`` (0: no entry); raises ``conflict`` and ``unavailable``.

        The entry is durable when this returns.
        """
        ...


class ResultBucket:
    """``ResultStore`` in the region's bucket."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection

    async def read(self, hold_id: bytes) -> Entry | None:
        """Read from the leader of the stream."""
        return await last(self._connection, RESULTS, _subject(hold_id))

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """Write by compare-and-set, and read the entry back."""
        await keep(self._connection, RESULTS, _subject(hold_id), raw, expected=expected)


def _subject(hold_id: bytes) -> str:
    return subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", hold_id.hex())
