"""Working through a call piece by piece, and once more through what outlived its keys' lease.

A call's lease is the smallest of its pieces'. So the pieces of a longer call get keys that last for
a while, and need not last longer than those of the pieces that are done. Where a lease has ended at
the end, because the machine was paused or the call is long, those pieces are done once more with
other keys. Nothing of the first time is output, and all of it stays in the generation in which the
call began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

PIECE: Final = limits.RECORDS_MAX
"""Records worked through without a wait: bounds how long a kill has to wait for the processor."""

TIMES_MAX: Final = 2
"""Times that a piece is worked through: once more helps after a pause, and nothing helps a call
that takes longer than its keys may be used."""

LASTING_S: Final = 4.0
"""Seconds for which the keys of a call of several pieces shall last, if there are such: twice the
largest reserve, and less than a key lasts that was just asked for, as leases are by default."""

_TWICE: Final = (
    "the lease of the keys ended during the work, twice; try again, with fewer records in a call"
    " if it takes seconds"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Results of a part of a call, in its order, and when the first lease of its keys ends.

    ``codes`` has one for each record of a decryption; an encryption has none.
    """

    values: list[bytes]
    codes: list[Code]
    until: float


Work = Callable[[slice, float], Awaitable[Piece]]
"""Does the records of a slice, with keys whose lease lasts until that moment if there are any."""


async def work_through(
    count: int, work: Work, still: Callable[[], float], elapsed: Callable[[], float]
) -> tuple[list[Piece], float]:
    """All pieces of ``count`` records, and for how many seconds from now they may be accepted.

    ``still`` says for how long an output of the operation is allowed, or raises; it is asked after
    every piece. Raises what it and ``work`` raise, and ``deadline_exceeded`` when a lease ended
    each time.
    """
    parts = [slice(at, at + PIECE) for at in range(0, count, PIECE)]
    if not parts:
        return [], still()
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
            lasting = EXPIRED if len(parts) == 1 else min(least, elapsed() + LASTING_S)
            piece = done[at] = await work(parts[at], lasting)
            allowed = still()  # of the last one it is for all: nothing waits from here to the end
            times[at] += 1
            least = min(least, piece.until)
        now = elapsed()
        todo = [at for at in range(len(parts)) if now >= done[at].until]
        for at in todo:
            del done[at]
    return [done[at] for at in range(len(parts))], min(allowed, least - now)
