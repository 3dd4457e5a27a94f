"""A follower of the control stream: what ``streams.Follower`` does over a real broker.

A consumer's deliveries are numbered. When one is missing, or the consumer is silent for too long,
a new one is made behind the follower's anchor; when the stream is another one, or ends below the
anchor, it is read from its start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from kcm_runtime.nats.ports import Entry, LogFollower
from kcm_schemas.codes import Code, KcmError

from tests.simulation.messages import SimConnection

if TYPE_CHECKING:
    from tests.simulation.stream import ControlStream

SILENCE_S: Final = 1.5
"""Seconds without a sign of life after which a consumer is made anew."""

HEARTBEAT_S: Final = 0.5
"""Seconds after which a consumer's heartbeat shows that a delivery was lost."""

ANSWER_S: Final = 5.0
"""Seconds that the broker gets to make a consumer."""


class SimFollowing:
    """``kcm_runtime.nats.ports.Following``."""

    def __init__(
        self,
        stream: ControlStream,
        connection: SimConnection,
        follower: LogFollower,
        variant: str = "",
    ) -> None:
        self._variant: Final = variant
        self._deaf_to_gaps: Final = variant == "replay-only-at-reconnect"
        self._stream: Final = stream
        self.connection: Final = connection
        self._follower: Final = follower
        self._position = 0
        self._created: int | None = None
        self._consumer = 0
        """Which consumer this is; in-flight deliveries of earlier ones are not taken."""
        self._live = False
        self._cursor = 0
        self._sent = 0
        self._delivered = 0
        self._last_at = 0.0
        self.lags = False
        """The broker of this consumer is behind, and does not know it: alive, and silent."""
        self.stuck = False
        """Its broker makes no consumer."""
        self.slow_s = 0.0
        """Seconds by which every delivery is late."""
        self._closing = False
        self._caught_up_at: int | None = None
        self._again: Final = asyncio.Event()
        self._caught_up: Final = asyncio.Event()
        self._progress: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """As the port says."""
        return self._position

    def again(self) -> None:
        """Make the consumer anew, from the anchor."""
        self._again.set()

    async def start(self) -> None:
        """As the port says."""
        self._stream.followings.append(self)
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._caught_up.wait()

    async def close(self) -> None:
        """As the port says."""
        self._closing = True
        self._live = False
        if self._task is not None:
            self._task.cancel()
        if self in self._stream.followings:
            self._stream.followings.remove(self)

    async def reached(self, sequence: int, timeout_s: float = 5.0) -> None:
        """As the port says."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._position < sequence:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise KcmError(Code.UNAVAILABLE, "the stream was not delivered in time") from None

    def offer(self, entry: Entry) -> None:
        """The stream has a new message."""
        if not self._live or self.lags or self._stream.in_minority(self.connection):
            return
        if self._stream.reachable(self.connection):
            self._send(entry)
        else:
            self._sent += 1  # the next one shows that this one was lost
            self.silence()

    def offer_missed(self) -> None:
        """The minority's broker is caught up with the majority's."""
        for entry in self._stream.entries(self._cursor) if self._live else ():
            self.offer(entry)

    def lose_consumer(self) -> None:
        """The broker forgot it, and says nothing."""
        self._live = False
        self.silence()

    def silence(self) -> None:
        """Nothing comes through; that is noticed."""
        self._notice_after(SILENCE_S)

    async def _run(self) -> None:
        wait = 0.1
        while not self._closing:
            self._again.clear()
            try:
                await self._make()
            except KcmError:
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)
                continue
            wait = 0.1
            await self._again.wait()

    async def _make(self) -> None:
        """Make a consumer; raises ``unavailable``."""
        stream, self._live = self._stream, False
        self._consumer += 1
        self._sent = self._delivered = 0
        await self._ask()
        if self.stuck or (self.lags and self._caught_up.is_set()):
            await self._no_answer()
        created, end = stream.information(self.connection)
        behind = self._follower.anchor()
        anew = self._created not in (None, created)
        self._created = created
        if anew or end < behind:
            stream.counts["went back"] += 1
            self._follower.went_back()
            behind = 0
        self._position = behind
        self._follower.resumed(behind)
        await self._ask()
        if stream.in_minority(self.connection):
            await self._no_answer()
        self._live = True
        if self._variant == "head-only-catch-up" and not self._caught_up.is_set():
            behind = end
        self._cursor = behind
        backlog = stream.entries(behind)
        self._caught_up_at = backlog[-1].sequence if backlog else None
        if not backlog:
            self._caught_up.set()
        for entry in backlog:
            self._send(entry)

    async def _ask(self) -> None:
        await asyncio.sleep(self._stream.delay() * 2)
        if not self._stream.reachable(self.connection):
            await self._no_answer()

    async def _no_answer(self) -> None:
        await asyncio.sleep(ANSWER_S)
        raise KcmError(Code.UNAVAILABLE, "the broker does not answer")

    def _send(self, entry: Entry) -> None:
        stream = self._stream
        self._cursor = entry.sequence
        self._sent += 1
        if stream.store.gap and stream.random.random() < stream.store.gap:
            stream.counts["delivery lost"] += 1
            self._notice_after(HEARTBEAT_S)
            return
        self._last_at = max(self._last_at, stream.loop.now + stream.delay() + self.slow_s)
        stream.loop.at(self._last_at, self._arrive, self._consumer, self._sent, entry)

    def _arrive(self, consumer: int, number: int, entry: Entry) -> None:
        node = self.connection.node
        if self.connection.leg.state == "open":
            self._stream.loop.call_soon(
                self._receive, consumer, number, entry, context=node.context
            )
        else:
            self.silence()

    def _receive(self, consumer: int, number: int, entry: Entry) -> None:
        if consumer != self._consumer or self._closing:
            return
        if number != self._delivered + 1 and not self._deaf_to_gaps:
            self._again.set()
            return
        self._delivered = number
        self._follower.receive(entry)
        self._position = entry.sequence
        self._progress.set()
        if self._caught_up_at is not None and entry.sequence >= self._caught_up_at:
            self._caught_up.set()

    def _notice_after(self, seconds: float) -> None:
        self._stream.loop.after(seconds, self._notice, self._consumer)

    def _notice(self, consumer: int) -> None:
        if consumer == self._consumer and not (self._deaf_to_gaps and self._live):
            self._again.set()
