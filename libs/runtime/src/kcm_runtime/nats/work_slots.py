"""Turns: one piece of work at a time between two looks at the network.

The event loop runs everything that is ready before it looks at the network again. A burst of data
requests would all be worked through first, for a second and more, while a kill lies in the socket.
So whoever is about to work for a while takes a turn: turns are given one for each round of the
loop, and a kill waits for one piece of work at most.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Gives turns in the order in which they were asked for, those that are urgent first."""

    def __init__(self) -> None:
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def take(self, *, urgent: bool = False) -> None:
        """Wait for a turn; the work that follows ends it by its next wait."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        (self._urgent if urgent else self._waiting).append(turn)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        """Give one turn; what it wakes runs in the next round, behind a look at the network."""
        for queue in (self._urgent, self._waiting):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    asyncio.get_running_loop().call_soon(self._give)
                    return
        self._scheduled = False
