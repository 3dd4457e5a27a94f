"""Turns: one piece of work between two polls of the network, in a fair order.

The event loop runs everything that is ready before it polls the network again. A burst of data
requests would all run first, for more than a second, while a kill waits in the socket. So work that
takes a while takes a turn first: the loop grants one turn in each round, and a kill waits for one
piece of work at most.

Urgent work is first. All other requests have a place in a fair queue (``kcm_runtime.fair_queue``)
from their arrival to their end, in two parts:

- ``DOOR``: what is not authenticated yet. The lanes are of what a message states in clear, so a
  turn here is for authentication alone, which is cheap.
- ``WORK``: what is authenticated. A handler asks for it with ``work``, and names the one who asks.

Both parts take turns, so forged messages get half of the processor at most, and cost only the room
of the door. A handler whose request waited for another instance takes a turn before it goes on
(``next_turn``): many answers may arrive in one round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from kcm_schemas.codes import Code, KcmError

from kcm_runtime.clock import SystemClock
from kcm_runtime.fair_queue import NEVER, QUANTUM, Bounds, FairQueue, Key, Ticket

DOOR: Final = "door"
WORK: Final = "work"

BOUNDS: Final = Bounds(requests=2048, size=128 * 1024 * 1024, running=64)
"""Requests and bytes of an instance, and running requests of one key. A single key has room for a
quarter of them: 512 requests, 32 MiB; a second application finds three quarters of that."""

REQUEST_COST: Final = QUANTUM
"""Cost of a request; about 0.15 ms of a processor."""

RECORD_COST: Final = 3 * 1024
"""Cost of one record or key; a byte costs 1. Measured with records of 16 B to 64 KiB."""

DOOR_COST: Final = QUANTUM // 8
"""Cost of authentication; a byte costs a half."""


def cost_of(records: int, size: int) -> int:
    """Return the cost of a request with so many records and bytes."""
    return REQUEST_COST + records * RECORD_COST + size


class Turns:
    """Grants turns: urgent ones first, then in the fair queue's order."""

    def __init__(
        self, now_ms: Callable[[], float] = SystemClock().unix_ms, bounds: Bounds = BOUNDS
    ) -> None:
        """``now_ms`` is for the requests' deadlines."""
        self._now_ms: Final = now_ms
        self._queue: Final[FairQueue[Place]] = FairQueue(bounds)
        self._urgent: Final[deque[asyncio.Future[None]]] = deque()
        self._scheduled = False
        self._granted = False
        """Whether a turn was granted in this round, and its work may go on."""

    def __len__(self) -> int:
        """Return the number of requests that have a place."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a turn."""
        return self._queue.waiting + len(self._urgent)

    def enter(self, key: Key, size: int) -> Place:
        """Give a request that arrived a place at the door; raises ``busy``.

        ``key`` is by what the message states in clear.
        """
        return Place(self, (DOOR, *key), size)

    async def take(self, *, urgent: bool = False) -> None:
        """Wait for a turn; the work after it ends with its next await."""
        if not urgent:
            place = self.enter((None,), 0)
            try:
                await place.turn()
            finally:
                place.leave()
            return
        turn = asyncio.get_running_loop().create_future()
        self._urgent.append(turn)
        self.schedule()
        await turn

    def put(self, place: Place, key: Key, cost: int, size: int, ends_ms: float) -> Ticket[Place]:
        """Let a place wait for its first turn under a key."""
        return self._queue.put(key, place, cost=cost, size=size, ends=ends_ms)

    def again(self, ticket: Ticket[Place]) -> None:
        """Let a place that runs wait for another turn."""
        self._queue.again(ticket, ticket.cost)

    def leave(self, ticket: Ticket[Place]) -> None:
        """Free a place; another request of its key may begin."""
        self._queue.leave(ticket)
        if self._queue.waiting:
            self.schedule()

    def pass_by(self, ticket: Ticket[Place]) -> bool:
        """Grant a turn at once, if this round has none yet and no other request waits."""
        if self.waiting > 1 or (self._scheduled and not self._granted):
            return False
        taken, _ = self._queue.take(self._now_ms())
        self._granted = False
        self.schedule()
        return taken is ticket

    def schedule(self) -> None:
        """Grant turns from the next round on, while there are requests that wait."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        """Grant one turn; the work runs in the next round, after a poll of the network."""
        self._granted = self._scheduled = False
        while self._urgent:
            turn = self._urgent.popleft()
            if not turn.done():
                turn.set_result(None)
                self.schedule()
                return
        ticket, late = self._queue.take(self._now_ms())
        for one in late:
            one.item.grant(in_time=False)
        if ticket is not None:
            ticket.item.grant(in_time=True)
            self._granted = True
            self.schedule()


class Place:
    """A request's place, from its arrival to its end."""

    def __init__(self, turns: Turns, key: Key, size: int) -> None:
        self._turns: Final = turns
        self._size: Final = size
        self._granted: asyncio.Future[bool] | None = None
        self._ticket = turns.put(self, key, DOOR_COST + size // 2, size, NEVER)

    async def turn(self) -> None:
        """Wait for a turn; raises ``deadline_exceeded`` if the request's deadline is over first."""
        self._granted = asyncio.get_running_loop().create_future()
        self._turns.schedule()
        try:
            in_time = await self._granted
        except asyncio.CancelledError:
            self.leave()
            raise
        if not in_time:
            raise KcmError(Code.DEADLINE_EXCEEDED, _LATE)

    async def work(self, key: Key, records: int, ends_ms: float) -> None:
        """Go from the door to the work of the one who asks, and wait for a turn.

        Raises ``busy``, and as ``turn`` does.
        """
        self.leave()
        cost = cost_of(records, self._size)
        self._ticket = self._turns.put(self, (WORK, *key), cost, self._size, ends_ms)
        if not self._turns.pass_by(self._ticket):
            await self.turn()

    async def again(self) -> None:
        """Wait for another turn."""
        self._turns.again(self._ticket)
        if not self._turns.pass_by(self._ticket):
            await self.turn()

    def grant(self, *, in_time: bool) -> None:
        """End the wait for a turn."""
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(in_time)

    def leave(self) -> None:
        """Free the place; once is enough."""
        self._turns.leave(self._ticket)

    def contended(self) -> bool:
        """Whether other requests wait."""
        return bool(self._turns.waiting)


_LATE: Final = "the deadline passed while the request waited for its turn, and no work was done"

_MINE: Final[ContextVar[Place | None]] = ContextVar("kcm_place", default=None)
"""The place of the request on which this task works; none outside of a request server."""


def begin(place: Place) -> None:
    """Note the place of the request on which this task works."""
    _MINE.set(place)


def contended() -> bool:
    """Whether other requests wait for a turn of this instance."""
    place = _MINE.get()
    return place is not None and place.contended()


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
