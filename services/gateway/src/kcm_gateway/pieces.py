"""Processing a call in pieces, and repeating those that outlived the lease of their keys.

The lease of a call is the smallest of its pieces. So the pieces of a longer call get keys that last
for a while, but no longer than those of the completed pieces. If a lease has ended when the call
ends, because the machine was paused or the call is long, those pieces are repeated once with other
keys. The first results are discarded, and everything stays in the generation in which the call
began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

PIECE: Final = limits.RECORDS_MAX
"""Records processed without an await: bounds how long a kill waits for the processor."""

PIECE_BYTES: Final = 4 * 1024 * 1024
"""Bytes processed without an await, unless one record has more: about 4 ms. A piece of 1024 records
of 64 KiB took 61 ms."""

TIMES_MAX: Final = 2
"""Times that a piece is processed: a repetition helps after a pause, and does not help a call that
takes longer than its keys may be used."""

LASTING_S: Final = 4.0
"""Seconds that the keys of a call with several pieces should last, if there are such keys: twice
the largest reserve, and less than the default lease of a new key."""

_TWICE: Final = (
    "the lease of the keys ended twice during the work; try again, with fewer records in a call"
    " if it takes seconds"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """The results of a part of a call in its order, and when the first lease of its keys ends.

    ``codes`` has one code for each record of a decryption; an encryption has none.
    """

    values: list[bytes]
    codes: list[Code]
    until: float


Work = Callable[[slice, float], Awaitable[Piece]]
"""Processes the records of a slice, preferably with keys whose lease lasts until that time."""


def parts_of(records: Sequence[bytes]) -> list[slice]:
    """Return the parts of a call: each within ``PIECE`` and ``PIECE_BYTES``, or of one record."""
    parts, start, size = [], 0, 0
    for at, record in enumerate(records):
        if at - start == PIECE or (size and size + len(record) > PIECE_BYTES):
            parts.append(slice(start, at))
            start, size = at, 0
        size += len(record)
    if records:
        parts.append(slice(start, len(records)))
    return parts


async def work_through(
    parts: list[slice], work: Work, recheck: Callable[[], float], elapsed: Callable[[], float]
) -> tuple[list[Piece], float]:
    """Return the pieces of all ``parts``, and their answer lease in seconds from now.

    ``recheck`` returns for how long an output of the operation may be accepted, or raises. It is
    called after every wait: before a piece that is not the first, and after every piece. Raises
    what it and ``work`` raise, and ``deadline_exceeded`` if a lease ended each time.
    """
    if not parts:
        return [], recheck()
    done: dict[int, Piece] = {}
    times = [0] * len(parts)
    todo: list[int] = list(range(len(parts)))
    allowed = least = now = 0.0
    while todo:
        least = min([piece.until for piece in done.values()], default=FOREVER)
        for at in todo:
            if times[at] == TIMES_MAX:
                raise KcmError(Code.DEADLINE_EXCEEDED, _TWICE)
            if done:
                await asyncio.sleep(0)
                recheck()  # no work begins with the keys of another generation
            lease_until = EXPIRED if len(parts) == 1 else min(least, elapsed() + LASTING_S)
            piece = done[at] = await work(parts[at], lease_until)
            allowed = recheck()  # the last one is for all pieces: there is no await until the end
            times[at] += 1
            least = min(least, piece.until)
        now = elapsed()
        todo = [at for at in range(len(parts)) if now >= done[at].until]
        for at in todo:
            del done[at]
    return [done[at] for at in range(len(parts))], min(allowed, least - now)
