"""Where a region keeps the results of finished kills: one entry of a bucket for each hold.

Nobody replays it: a result is read when somebody asks for that kill.
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
        """What is stored for a hold, to be verified; raises ``unavailable``."""
        ...

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """Store over ``expected`` (0: over nothing); raises ``conflict`` and ``unavailable``.

        It is there when this returns.
        """
        ...


class ResultBucket:
    """``ResultStore`` in the region's bucket."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection

    async def read(self, hold_id: bytes) -> Entry | None:
        """As the stream's leader has it."""
        return await last(self._connection, RESULTS, _subject(hold_id))

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        """By compare-and-set, and read back."""
        await keep(self._connection, RESULTS, _subject(hold_id), raw, expected=expected)


def _subject(hold_id: bytes) -> str:
    return subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", hold_id.hex())
