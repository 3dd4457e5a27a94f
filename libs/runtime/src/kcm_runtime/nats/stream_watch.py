"""A connection leaves a node of the broker that does not reach a stream's leader.

A node that is cut off from its cluster answers its clients' pings and serves nothing. Where an
instance writes all the time, missing acknowledgements show that. A connection that is used only now
and then has to ask.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kcm_schemas.codes import KcmError

from kcm_runtime.clock import Clock
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import acknowledged
from kcm_runtime.tasks import TaskSet


class StreamWatch:
    """Asks for a stream every ``every_s`` seconds; after ``patience_s`` without answer, moves."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        clock: Clock,
        *,
        every_s: float,
        patience_s: float,
    ) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        self._clock: Final = clock
        self._every_s: Final = every_s
        self._patience_s: Final = patience_s
        self._tasks: Final = TaskSet()

    def start(self) -> None:
        """Begin to ask. With a single node there is no other one, and nothing is asked."""
        if self._connection.nodes > 1:
            self._tasks.spawn(self._keep())

    def close(self) -> None:
        """Ask no more."""
        self._tasks.close()

    async def _keep(self) -> None:
        heard = self._clock.elapsed()
        # A flag in addition to cancellation: the client library may swallow a cancellation.
        while not self._tasks.closed:
            if not self._connection.connected or await self._answers():
                heard = self._clock.elapsed()
            elif self._clock.elapsed() - heard >= self._patience_s:
                heard = self._clock.elapsed()
                await self._connection.move()
            await asyncio.sleep(self._every_s)

    async def _answers(self) -> bool:
        try:
            await acknowledged(self._connection, self._stream)
        except StreamMissing:
            return True  # the leader says so
        except KcmError:
            return False
        return True
