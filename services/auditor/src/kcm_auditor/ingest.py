"""Reading a region's audit stream: in order, each message once, from the journal's position.

Theory of operation. The journal alone decides what is recorded: a message counts by its sequence in
the stream, and the broker keeps no state for this Auditor. An ephemeral consumer begins at the
journal's position. The broker numbers its deliveries: if such a number is missing, a message was
lost in transit and the consumer is recreated (``deliveries``); if only a number of the stream is
missing, the stream itself lacks the message.

A stream that was recreated or rolled back is read from its start; recorded messages are recognised.
A rolled-back stream can be longer again when it is read. So a consumer begins with the last
recorded message, which must be identical byte for byte, even if it is not trusted or has no new
events. If that message was trimmed, the trim's digest is compared.

A journal that lost entries is detected by the last head that this Auditor signed, which is in the
region's control stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from typing import Final

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.stream import READ_BYTES_PER_S
from kcm_runtime.audit.stream_chain import created_us
from kcm_runtime.backoff import Backoff
from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import check_streams
from kcm_runtime.nats.push_consumer import PushConsumer, push_consumer
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js import errors as js_errors

from kcm_auditor.arrivals import Arrival, Verdict
from kcm_auditor.deliveries import Deliveries, Ended
from kcm_auditor.sink import Sink, StreamFacts

log = logging.getLogger(__name__)

RETRY_S: Final = 0.2
"""Seconds before a consumer is bound again after an error, the first time; doubles."""

RETRY_MAX_S: Final = 5.0
"""The most seconds between two attempts."""

READ_AGAIN: Final = "the stream is read again from its last trim"
"""Why a consumer ends if the chain can be restored from a trim."""


class RegionFeed:
    """Follows one region's stream until ``stopping`` is set. Errors of the sink end it."""

    def __init__(
        self,
        connection: Connection,
        region: str,
        auditor: str,
        sink: Sink,
        stopping: asyncio.Event,
        emit: Emit,
        clock: Clock,
    ) -> None:
        # A cancellation is not enough: ``asyncio.wait_for`` of Python 3.11, with which the client
        # library waits, swallows it if a message arrives at the same moment.
        self._stopping: Final = stopping
        self._connection: Final = connection
        self._region: Final = region
        self._named: Final = fields(region=region)
        self._auditor: Final = auditor
        self._sink: Final = sink
        self._emit: Final = emit
        self._clock: Final = clock
        self._weak = ""
        self._opened = False
        self._deliveries: Deliveries | None = None

    async def run(self) -> None:
        """Read, with back-off while the broker or the stream is unavailable."""
        backoff = Backoff(RETRY_S, RETRY_MAX_S, jitter=(0.5, 1.0))
        self._connection.on_reconnect(lambda: self._end("there is a new connection"))
        while not self._stopping.is_set():
            try:
                async with self._bound() as (consumer, deliveries):
                    self._sink.reachable(self._region, up=True)
                    backoff.reset()
                    await self._read(consumer, deliveries)
            except Ended as reason:
                log.info("the consumer is recreated: %s", reason, extra=self._named)
                await asyncio.sleep(RETRY_S)
                continue
            except js_errors.NotFoundError:
                log.warning(
                    "the region has no stream %s: provision the region, or restore its backup",
                    subjects.AUDIT_STREAM,
                    extra=self._named,
                )
            except (nats_errors.Error, KcmError, TimeoutError, OSError) as error:
                log.warning("the region cannot be read: %s", describe(error), extra=self._named)
            self._sink.reachable(self._region, up=False)
            await backoff.wait()

    def _end(self, why: str, *, discard: bool = False) -> None:
        """End the present consumer, if there is one."""
        if self._deliveries is not None:
            self._deliveries.end(why, discard=discard)

    @contextlib.asynccontextmanager
    async def _bound(self) -> AsyncIterator[tuple[PushConsumer, Deliveries]]:
        """Have a consumer from the position of the journal on."""
        await self._check()
        head = b"" if self._opened else await self._head()
        facts = await self._facts()
        verdict = self._sink.compare(self._region, facts)
        start = self._sink.position(self._region) if verdict is Verdict.SAME else 0
        deliveries = self._deliveries = Deliveries(self._region, self._clock)
        # It begins with the last recorded message, to check that it is the same.
        made = push_consumer(
            self._connection,
            subjects.AUDIT_STREAM,
            subjects.audit_all(self._region),
            max(start, 1),
            deliveries.receive,
            prefix=f"{self._auditor}-",
            bytes_per_s=READ_BYTES_PER_S,
        )
        async with contextlib.AsyncExitStack() as stack:
            with _foreign():
                consumer = await stack.enter_async_context(made)
            # A broker that is cut off from the others answers with old facts for a while, but
            # cannot have created a consumer. Its facts count only if it repeats them afterwards.
            again = await self._facts()
            if self._sink.compare(self._region, again) is not verdict:
                raise Ended("the broker contradicts itself about the stream")
            await self._sink.opened(self._region, again, head)
            self._opened = True
            before = self._sink.position(self._region)
            await self._look_for_trim(again)
            if self._sink.position(self._region) < before:
                raise Ended(READ_AGAIN)
            yield consumer, deliveries

    async def _head(self) -> bytes:
        """Return the last head at this Auditor's place in the control stream.

        It is read once: what the journal has while this process runs is known.
        """
        subject = subjects.control_head(self._region, self._auditor)
        entry = await last(self._connection, subjects.CONTROL_STREAM, subject)
        return b"" if entry is None else entry.data

    async def _check(self) -> None:
        """Record that the stream lacks protection, once for each change, and continue.

        An Auditor that stopped could be what an attacker who removed the protection wants.
        """
        try:
            await check_streams(self._connection, self._region, (subjects.AUDIT_STREAM,))
            weak = ""
        except Unfit as error:
            weak = str(error)
        except StreamMissing:
            raise js_errors.NotFoundError from None
        if weak and weak != self._weak:
            log.error("%s", weak, extra=self._named)
            self._emit(EventType.STREAM_WEAK, code=Code.UNAVAILABLE, detail=self._region)
        self._weak = weak

    async def look(self) -> StreamFacts:
        """Note the stream's state and its last trim; raises ``KcmError`` and NATS's errors.

        If the chain can be read again from a trim, the consumer is recreated.
        """
        await self._check()
        recorded = self._sink.position(self._region)
        facts = await self._facts()
        self._sink.noticed(self._region, facts)
        if facts.last < recorded:
            self._end("the stream ends before what was read of it")
        before = self._sink.position(self._region)
        await self._look_for_trim(facts)
        if self._sink.position(self._region) < before:
            self._end(READ_AGAIN, discard=True)
        return facts

    async def _look_for_trim(self, facts: StreamFacts) -> None:
        """Pass the last trim to the sink; required before messages are read across a gap."""
        try:
            entry = await last(
                self._connection, subjects.CONTROL_STREAM, subjects.control_trim(self._region)
            )
        except KcmError:
            if facts.first > self._sink.position(self._region) + 1:
                raise
            log.warning("the last trim cannot be read", extra=self._named)
            return
        if entry is not None and entry.data:
            await self._sink.trimmed(self._region, entry.data, facts)

    async def _facts(self) -> StreamFacts:
        with _foreign():
            info = await self._connection.jetstream().stream_info(subjects.AUDIT_STREAM)
            numbers = (info.state.last_seq, info.state.first_seq, info.state.bytes)
            if not all(type(one) is int for one in numbers):
                raise ValueError("a stream's state without numbers")
            created = info.created.isoformat() if info.created is not None else "unknown"
            most = max(info.config.max_bytes or 0, 0)
            return StreamFacts(created, *numbers, most, created_us(info.created))

    async def _read(self, consumer: PushConsumer, deliveries: Deliveries) -> None:
        """Record what arrives; raises ``Ended``."""
        stopping = asyncio.create_task(_stop_after(deliveries, consumer))
        try:
            while not self._stopping.is_set():
                arrived = await deliveries.batch()
                if arrived:
                    await self._record(arrived)
        finally:
            stopping.cancel()

    async def _record(self, arrived: Sequence[Arrival]) -> None:
        """Record messages; raises ``Ended`` if the stream has to be read again."""
        position = self._sink.position(self._region)
        places = (position, *(arrival.position for arrival in arrived))
        if any(later > earlier + 1 for earlier, later in pairwise(places)):
            await self.look()
            if self._sink.position(self._region) < position:
                raise Ended(READ_AGAIN)
            position = self._sink.position(self._region)
        new: list[Arrival] = []
        other = 0
        for arrival in arrived:
            if arrival.position > position:
                new.append(arrival)
            elif not self._sink.recorded(arrival):
                other = arrival.position
                break
        await self._sink.take(new)
        if other:
            await self._sink.went_back(self._region, other)
            raise Ended(
                f"message {other} is not the recorded one: the stream was rolled back, and is read"
                " from its start"
            )


async def _stop_after(deliveries: Deliveries, consumer: PushConsumer) -> None:
    """Receive nothing more once it would not be kept, also while the journal is written."""
    await deliveries.ended.wait()
    await consumer.stop()


@contextlib.contextmanager
def _foreign() -> Iterator[None]:
    """Turn an answer of unexpected form into ``unavailable``: it must not end the Auditor."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KcmError(Code.UNAVAILABLE, "unexpected form of the broker's answer") from None
