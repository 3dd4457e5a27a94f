"""Turns: one piece of work between two polls of the network, in a fair order.

The event loop runs everything that is ready before it polls the network again. A burst of data
requests would all run first, for more than a second, while a kill waits in the socket. So work that
takes a while takes a turn first: the loop grants one turn in each round, and a kill waits for one
piece of work at most.

Urgent work is first. All other requests have a place in one of two fair queues
(``kcm_runtime.fair_queue``) from their arrival to their end:

- the *door*, for what is not authenticated yet. The lanes are of what a message states in clear, so
  a turn here is for authentication alone, which is cheap.
- *work*, for what is authenticated. A handler asks for it with ``work``, and names its caller.

Each round has one turn of both, so forged messages delay no work by more than they cost, and use
only the room of the door. After an expensive turn, the network is polled several times before the
next one: otherwise a small request would wait in the socket until large ones before it are read, a
piece in each round. A handler whose request waited for another instance takes another turn
(``next_turn``): many answers may arrive in one round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from kcm_runtime.clock import SystemClock
from kcm_runtime.fair_queue import NEVER, QUANTUM, Bounds, FairQueue, Key

DOOR: Final = Bounds(requests=2048, size=64 * 1024 * 1024, running=2048)
"""Messages that wait for authentication. One session has room for a quarter of them."""

WORK: Final = Bounds(requests=1536, size=96 * 1024 * 1024, running=64)
"""Requests and bytes that wait or run, and running requests of one key. A single key has room for
512 requests and 32 MiB; a second application finds three quarters of that."""

REQUEST_COST: Final = QUANTUM
"""Cost of a request; about 0.15 ms of a processor."""

RECORD_COST: Final = 1024
"""Cost of one record or key, which takes about 2 µs; a byte costs 1."""

CHEAP: Final = 2 * QUANTUM
"""The most that a turn may cost without polls after it: that of a small request."""

POLL_COST: Final = QUANTUM
"""Cost of an expensive turn for which the network is polled once before the next such turn."""

_CLOCK: Final = SystemClock()


def cost_of(records: int, size: int) -> int:
    """Return the cost of a request with so many records, which are only stated, and bytes."""
    return REQUEST_COST + min(max(records, 0), limits.RECORDS_MAX) * RECORD_COST + size


class Turns:
    """Grants turns: urgent ones first, then in the order of the two queues."""

    def __init__(
        self,
        now_ms: Callable[[], float] = _CLOCK.unix_ms,
        *,
        door: Bounds = DOOR,
        work: Bounds = WORK,
    ) -> None:
        """``now_ms`` is for the requests' deadlines."""
        self._now_ms: Final = now_ms
        self.door: Final[FairQueue[Place]] = FairQueue(door)
        self.work: Final[FairQueue[Place]] = FairQueue(work)
        self._urgent: Final[deque[asyncio.Future[None]]] = deque()
        self._scheduled = False
        self._polls = 0
        """Rounds before the next expensive turn."""
        self._at_door = False
        """Whether the last expensive turn was at the door."""
        self._free = False
        """Whether this round had no turn for work."""

    async def take(self, *, urgent: bool = False) -> None:
        """Wait for a turn; the work after it ends with its next await."""
        if not urgent:
            place = Place(self, (None,), 0)
            try:
                await place.turn()
            finally:
                place.leave()
            return
        turn = asyncio.get_running_loop().create_future()
        self._urgent.append(turn)
        self.schedule()
        await turn

    def pass_by(self) -> None:
        """Grant the only turn that is asked for at once, if this round has none yet."""
        if self.work.waiting == 1 and not self._urgent and (self._free or not self._scheduled):
            self._free = False
            self._grant(self.work, 0)
        self.schedule()

    def schedule(self) -> None:
        """Grant turns from the next round on, while there are requests that wait."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        """Grant turns; their work runs in the next round, after a poll of the network."""
        self._free = self._scheduled = False
        while self._urgent:
            turn = self._urgent.popleft()
            if not turn.done():
                turn.set_result(None)
                self.schedule()
                return
        again, self._polls = self._polls > 0, max(self._polls - 1, 0)
        # After an expensive turn at the door, the next one is for work, and the reverse.
        first, second = (self.work, self.door) if self._at_door else (self.door, self.work)
        granted = [queue for queue in (first, second) if self._grant(queue, self._polls)]
        self._free = granted == [self.door]
        if again or granted or self._polls:
            self.schedule()

    def _grant(self, queue: FairQueue[Place], polls: int) -> bool:
        ticket, late = queue.take(self._now_ms(), CHEAP if polls else NEVER)
        for one in late:
            one.item.grant(in_time=False)
        if ticket is None:
            return False
        ticket.item.grant(in_time=True)
        if ticket.cost > CHEAP:
            self._polls = ticket.cost // POLL_COST
            self._at_door = queue is self.door
        return True


class Place:
    """A request's place, from its arrival to its end: first at the door."""

    def __init__(self, turns: Turns, key: Key, size: int) -> None:
        """Raise ``busy`` if there is no room; ``key`` is by what the message states in clear."""
        self._turns: Final = turns
        self._size: Final = size
        self._queue = turns.door
        self._granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ticket = turns.door.put(key, self, cost=REQUEST_COST + size, size=size)

    @property
    def contended(self) -> bool:
        """Whether other requests wait for work."""
        return bool(self._turns.work.waiting)

    async def turn(self) -> None:
        """Wait for a turn; raises ``deadline_exceeded`` if the request's deadline is over first."""
        self._turns.schedule()
        if not await self._granted:
            raise KcmError(Code.DEADLINE_EXCEEDED, _LATE)

    async def work(self, key: Key, records: int, ends_ms: float) -> None:
        """Go from the door to the work of the one who asks, and wait for a turn.

        Raises ``busy``, and as ``turn`` does.
        """
        self.leave()
        self._queue, cost = self._turns.work, cost_of(records, self._size)
        self._granted = asyncio.get_running_loop().create_future()
        self._ticket = self._queue.put(key, self, cost=cost, size=self._size, ends=ends_ms)
        self._turns.pass_by()
        await self.turn()

    async def again(self) -> None:
        """Wait for another turn."""
        self._granted = asyncio.get_running_loop().create_future()
        self._queue.again(self._ticket, self._ticket.cost)
        self._turns.pass_by()
        await self.turn()

    def grant(self, *, in_time: bool) -> None:
        """End the wait for a turn."""
        if not self._granted.done():
            self._granted.set_result(in_time)

    def leave(self) -> None:
        """Free the place, once; another request of its key may begin."""
        self._queue.leave(self._ticket)
        if self._queue.waiting:
            self._turns.schedule()


_LATE: Final = "the deadline passed while the request waited for its turn, and no work was done"

_MINE: Final[ContextVar[Place | None]] = ContextVar("kcm_place", default=None)
"""The place of the request on which this task works; none outside of a request server."""


def begin(place: Place) -> None:
    """Note the place of the request on which this task works."""
    _MINE.set(place)


def contended() -> bool:
    """Whether other requests wait for a turn of this instance."""
    place = _MINE.get()
    return place is not None and place.contended


async def work(key: Key, *, records: int, ends_ms: float) -> None:
    """Wait for a turn to work for ``key``, now that it is authenticated; raises ``busy``.

    ``ends_ms`` is the request's deadline in Unix milliseconds: one that passes during the wait
    raises ``deadline_exceeded``. Outside of a request server there is no wait.
    """
    place = _MINE.get()
    if place is not None:
        await place.work(key, records, ends_ms)


async def next_turn() -> None:
    """Wait for another turn after an answer of another instance; no wait outside of a server."""
    place = _MINE.get()
    if place is not None:
        await place.again()
