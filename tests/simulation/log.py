"""A region's control stream as an instance sees it: ``kcm_runtime.nats.ports.StreamLog``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kcm_runtime.nats.jetstream_errors import is_conflict
from kcm_runtime.nats.ports import Entry, LogFollower, StreamLeader
from kcm_schemas.codes import Code, KcmError
from nats.js.errors import APIError

from tests.simulation.following import SimFollowing
from tests.simulation.messages import SimConnection
from tests.simulation.stream import ControlStream, Put

ANSWER_S: Final = 5.0
"""Seconds that a client waits for an acknowledgement, or for an answer."""

_NO_ANSWER: Final = "the region's store cannot be reached"


class SimLog:
    """Puts, looks and follows over a connection."""

    def __init__(self, stream: ControlStream, connection: SimConnection, variant: str = "") -> None:
        self._variant: Final = variant
        self.is_conflict: Callable[[APIError], bool] = is_conflict
        self._stream: Final = stream
        self._connection: Final = connection
        self.following: SimFollowing | None = None
        """The first follower, which is the incarnation's permanent one."""

    async def put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        """As the port says."""
        self._check()
        put = (subject, body, expected, float(ttl.removesuffix("s")) if ttl else 0.0)
        answer: asyncio.Future[int | APIError] = asyncio.get_running_loop().create_future()
        self._send(put, answer)
        try:
            async with asyncio.timeout(ANSWER_S):
                result = await answer
        except TimeoutError:
            raise KcmError(Code.UNAVAILABLE, _NO_ANSWER) from None
        if isinstance(result, APIError):
            raise KcmError(Code.CONFLICT if self.is_conflict(result) else Code.UNAVAILABLE)
        return result

    async def move(self) -> None:
        """Each side has one node: there is no other one."""

    async def last(self, subject: str) -> Entry | None:
        """As the port says."""
        await self._arrive()
        found = self._stream.look(self._connection, subject)
        await asyncio.sleep(self._stream.delay())
        return found

    async def leading(self) -> StreamLeader:
        """As the port says."""
        await self._arrive()
        found = self._stream.leading(self._connection)
        await asyncio.sleep(self._stream.delay())
        return found

    def follow(self, follower: LogFollower) -> SimFollowing:
        """As the port says."""
        made = SimFollowing(self._stream, self._connection, follower, self._variant)
        self.following = self.following or made
        return made

    async def _arrive(self) -> None:
        """Wait until a question is at the store; without a way to it there is no answer."""
        self._check()
        await asyncio.sleep(self._stream.delay())
        if not self._stream.reachable(self._connection):
            await asyncio.sleep(ANSWER_S)
            raise KcmError(Code.UNAVAILABLE, _NO_ANSWER)

    def _check(self) -> None:
        if not self._connection.connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")

    def _send(self, put: Put, answer: asyncio.Future[int | APIError]) -> None:
        stream, store = self._stream, self._stream.store
        draw = stream.random.random

        def acknowledge(result: int | APIError) -> None:
            if store.unheard and draw() < store.unheard:
                stream.counts["acknowledgement lost"] += 1
            else:
                stream.loop.after(stream.delay(), self._acknowledged, answer, result)

        if store.lost and draw() < store.lost:
            stream.counts["put lost"] += 1
            return
        delay = stream.delay()
        if store.late and draw() < store.late:
            stream.counts["put late"] += 1
            delay = stream.random.expovariate(1 / store.late_s)
        if store.again and draw() < store.again:
            stream.counts["put twice"] += 1
            stream.loop.after(delay, stream.accept, self._connection, put, lambda _: None)
            delay += stream.delay()
        stream.loop.after(delay, stream.accept, self._connection, put, acknowledge)

    def _acknowledged(self, answer: asyncio.Future[int | APIError], result: int | APIError) -> None:
        leg = self._connection.leg
        if leg.state == "stalled":
            leg.held.append(lambda: self._acknowledged(answer, result))
        elif leg.state == "open" and self._connection.connected and not answer.done():
            answer.set_result(result)
