"""Turns: one piece of work between two polls of the network.

The event loop runs everything that is ready before it polls the network again. A burst of data
requests would all run first, for more than a second, while a kill waits in the socket. So work that
takes a while takes a turn first: the loop grants one turn in each round, and a kill waits for one
piece of work at most.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Grants turns in the order of the requests, urgent ones first."""

    def __init__(self) -> None:
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def take(self, *, urgent: bool = False) -> None:
        """Wait for a turn; the work after it ends with its next await."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        (self._urgent if urgent else self._waiting).append(turn)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        """Grant one turn; the work runs in the next round, after a poll of the network."""
        for queue in (self._urgent, self._waiting):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    asyncio.get_running_loop().call_soon(self._give)
                    return
        self._scheduled = False
