"""What a consumer delivered and the journal does not have yet: in order, without a gap, bounded.

The broker sends faster than a disk flushes, and nothing but the end of the subscription makes it
wait. So at the bound no more is kept: what is here is recorded, and another consumer begins after
it. A delivery whose number is not the next one is treated in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.nats.push_consumer import HEARTBEAT_S, SILENCE_S, heartbeat, sent
from kcm_schemas.codes import KcmError
from nats import errors as nats_errors
from nats.aio.msg import Msg

from kcm_auditor.arrivals import Arrival

BATCH_MAX: Final = 32
"""Messages that are recorded with one flush of the journal: 28 MiB at most."""

WAITING_MAX: Final = 4096
"""Messages that wait: some seconds of a busy region."""

WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes that wait; one more message may exceed them."""


class Ended(Exception):
    """The consumer delivers no more. The text has the reason."""


class Deliveries:
    """The deliveries of one consumer of a region's stream."""

    def __init__(
        self,
        region: str,
        clock: Clock,
        waiting_max: int = WAITING_MAX,
        bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._region: Final = region
        self._clock: Final = clock
        self._waiting_max: Final = waiting_max
        self._bytes_max: Final = bytes_max
        self._waiting: Final = deque[Arrival]()
        self._bytes = 0
        self._numbered = 0
        self._heard = clock.elapsed()
        self._arrived: Final = asyncio.Event()
        self.ended: Final = asyncio.Event()
        """Set when no more deliveries are kept: the consumer serves no purpose."""
        self._why = ""

    async def receive(self, message: Msg) -> None:
        """Take a message of the consumer, or a heartbeat."""
        self._heard = self._clock.elapsed()
        if self.ended.is_set():
            return
        try:
            self._take(message)
        except (nats_errors.Error, KcmError, ValueError, KeyError, TypeError, AttributeError):
            self.end("the broker sent a delivery of unexpected form")

    def end(self, why: str, *, discard: bool = False) -> None:
        """Keep no more deliveries; with ``discard``, also none that wait."""
        self._why = self._why or why
        if discard:
            self._waiting.clear()
            self._bytes = 0
        self.ended.set()
        self._arrived.set()

    async def batch(self) -> list[Arrival]:
        """Return the next messages, or none after half a second; raises ``Ended`` after the last.

        A consumer that is as silent as a deleted one ends, too.
        """
        if not self._waiting and not self.ended.is_set():
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), HEARTBEAT_S)
        if not self._waiting:
            if self._clock.elapsed() - self._heard >= SILENCE_S:
                self.end("no heartbeat")
            if self.ended.is_set():
                raise Ended(self._why)
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        self._bytes -= sum(len(arrival.body) for arrival in batch)
        return batch

    def _take(self, message: Msg) -> None:
        headers = heartbeat(message)
        if headers is not None:
            if sent(headers) > self._numbered:
                self.end("a message was lost in transit")
            return
        sequence = message.metadata.sequence
        if sequence.consumer != self._numbered + 1:
            self.end("a message was lost in transit")
            return
        if len(self._waiting) >= self._waiting_max or self._bytes >= self._bytes_max:
            self.end("the broker sends faster than the journal is written")
            return
        self._numbered = sequence.consumer
        self._bytes += len(message.data)
        self._waiting.append(Arrival(self._region, sequence.stream, message.subject, message.data))
        self._arrived.set()
