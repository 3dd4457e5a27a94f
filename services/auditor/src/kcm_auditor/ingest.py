"""Reading a region's audit stream: in order, each message once, acknowledged when recorded.

Theory of operation. A durable pull consumer tells the broker what this Auditor has recorded, but
the journal decides: a message counts by its sequence in the stream. Whenever the consumer is bound,
it is recreated at the journal's position. The broker numbers its deliveries: if such a number is
missing, a message was lost in transit and the consumer is recreated; if only a number of the stream
is missing, the stream itself lacks the message.

A stream that was recreated or rolled back is read from its start; recorded messages are recognised.
A rolled-back stream can be longer again when it is read. So a consumer begins with the last
recorded message, which must be identical byte for byte, even if it is not trusted or has no new
events. If that message was trimmed, the trim's digest is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.stream_chain import created_us
from kcm_runtime.backoff import Backoff
from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import check_streams
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from kcm_auditor.arrivals import Arrival, Verdict
from kcm_auditor.positions import MESSAGES_KEPT
from kcm_auditor.sink import Sink, StreamFacts

log = logging.getLogger(__name__)

FETCH_MAX: Final = 32
"""Messages in one request to the broker: 28 MiB at most, and one flush of the journal."""

FETCH_S: Final = 2.0
"""Seconds that one request to the broker waits, and after which a lost one is detected."""

IDLE_FETCHES: Final = 5
"""Requests without a message after which consumer and stream are checked again."""

ACK_WAIT_S: Final = 30.0
"""Seconds after which the broker sends an unacknowledged message again."""

RETRY_S: Final = 0.2
"""Seconds before a consumer is bound again after an error, the first time; doubles."""

RETRY_MAX_S: Final = 5.0
"""The most seconds between two attempts."""


class _RebindError(Exception):
    """The consumer must be bound again. The text has the reason."""


class RegionFeed:
    """Follows one region's stream until ``stopping`` is set. Errors of the sink end it."""

    def __init__(
        self,
        connection: Connection,
        region: str,
        durable: str,
        sink: Sink,
        stopping: asyncio.Event,
        emit: Emit,
    ) -> None:
        # A cancellation is not enough: ``asyncio.wait_for`` of Python 3.11, with which the client
        # library waits, swallows it if a message arrives at the same moment.
        self._stopping: Final = stopping
        self._connection: Final = connection
        self._region: Final = region
        self._named: Final = fields(region=region)
        self._durable: Final = durable
        self._sink: Final = sink
        self._emit: Final = emit
        self._weak = ""
        self._delivered = 0
        self._acknowledged = 0
        self._again = False

    async def run(self) -> None:
        """Read, with back-off while the broker or the stream is unavailable."""
        backoff = Backoff(RETRY_S, RETRY_MAX_S, jitter=(0.5, 1.0))
        while not self._stopping.is_set():
            try:
                subscription = await self._bind()
                try:
                    self._sink.reachable(self._region, up=True)
                    backoff.reset()
                    await self._read(subscription)
                finally:
                    with contextlib.suppress(nats_errors.Error, KcmError):
                        await subscription.unsubscribe()
            except _RebindError as reason:
                log.info("the consumer is bound again: %s", reason, extra=self._named)
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

    async def _bind(self) -> JetStreamContext.PullSubscription:
        """Bind the consumer at the position of the journal."""
        await self._check()
        js = self._connection.jetstream()
        facts = await self._facts(js)
        verdict = self._sink.compare(self._region, facts)
        start = self._sink.position(self._region) if verdict is Verdict.SAME else 0
        existing = await self._existing(js)
        if existing is not None and existing.ack_floor:
            # Kept until the sink has it: the recreated consumer forgets it.
            self._acknowledged = max(self._acknowledged, existing.ack_floor.stream_seq)
        with _foreign():
            if existing is not None:
                await js.delete_consumer(subjects.AUDIT_STREAM, self._durable)
            # It begins with the last recorded message, to check that it is the same.
            await js.add_consumer(subjects.AUDIT_STREAM, self._config(max(start, 1)))
        self._delivered = 0
        # A broker that is cut off from the others answers with old facts for a while, but cannot
        # have created a consumer. Its facts count only if it repeats them afterwards.
        again = await self._facts(js)
        if self._sink.compare(self._region, again) is not verdict:
            raise _RebindError("the broker contradicts itself about the stream")
        await self._sink.opened(self._region, again, self._acknowledged)
        self._acknowledged = 0
        before = self._sink.position(self._region)
        await self._look_for_trim(again)
        if self._sink.position(self._region) < before:
            raise _RebindError("the stream is read again from its last trim")
        return await js.pull_subscribe_bind(consumer=self._durable, stream=subjects.AUDIT_STREAM)

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
        facts = await self._facts(self._connection.jetstream())
        self._sink.noticed(self._region, facts)
        before = self._sink.position(self._region)
        await self._look_for_trim(facts)
        if self._sink.position(self._region) < before:
            self._again = True
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

    async def _facts(self, js: JetStreamContext) -> StreamFacts:
        with _foreign():
            info = await js.stream_info(subjects.AUDIT_STREAM)
        created = info.created.isoformat() if info.created is not None else "unknown"
        return StreamFacts(
            created,
            info.state.last_seq,
            info.state.first_seq,
            info.state.bytes,
            max(info.config.max_bytes or 0, 0),
            created_us(info.created),
        )

    async def _existing(self, js: JetStreamContext) -> ConsumerInfo | None:
        try:
            with _foreign():
                info: ConsumerInfo = await js.consumer_info(subjects.AUDIT_STREAM, self._durable)
        except js_errors.NotFoundError:
            return None
        return info

    def _config(self, first: int) -> ConsumerConfig:
        return ConsumerConfig(
            # The name besides the durable one: only then the request's subject contains it, so that
            # the broker can protect this consumer from other clients.
            name=self._durable,
            durable_name=self._durable,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=MESSAGES_KEPT,
            filter_subject=subjects.audit_all(self._region),
        )

    async def _read(self, subscription: JetStreamContext.PullSubscription) -> None:
        idle = 0
        while not self._stopping.is_set():
            try:
                with _foreign():
                    messages = await subscription.fetch(FETCH_MAX, timeout=FETCH_S)
            except TimeoutError:
                # A deleted consumer is as silent as one without messages.
                idle += 1
                if idle >= IDLE_FETCHES or not self._connection.connected:
                    raise _RebindError("no message for a while") from None
                continue
            idle = 0
            await self._record(messages)
            if self._again:
                self._again = False
                raise _RebindError("the stream is read again from its last trim")

    async def _record(self, messages: list[Msg]) -> None:
        """Record and acknowledge; raises ``_RebindError`` if a delivery is missing."""
        position = self._sink.position(self._region)
        with _foreign():
            missing = any(
                later.metadata.sequence.stream > earlier + 1
                for earlier, later in zip(
                    [position, *(m.metadata.sequence.stream for m in messages)],
                    messages,
                    strict=False,
                )
            )
        if missing:
            await self.look()
            position = self._sink.position(self._region)
        arrivals: list[Arrival] = []
        received, other = 0, 0
        for message in messages:
            with _foreign():
                sequence = message.metadata.sequence
            if sequence.consumer != self._delivered + 1:
                break
            self._delivered = sequence.consumer
            received += 1
            arrival = Arrival(self._region, sequence.stream, message.subject, message.data)
            if sequence.stream > position:
                arrivals.append(arrival)
                position = sequence.stream
            elif not self._sink.recorded(arrival):
                other = sequence.stream
                break
        await self._sink.take(arrivals)
        if other:
            await self._sink.went_back(self._region, other)
            raise _RebindError(
                f"message {other} is not the recorded one: the stream was rolled back, and is read"
                " from its start"
            )
        for message in messages[:received]:
            await message.ack()
        if received < len(messages):
            raise _RebindError("a message was lost in transit")


@contextlib.contextmanager
def _foreign() -> Iterator[None]:
    """Turn an answer of unexpected form into ``unavailable``: it must not end the Auditor."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KcmError(Code.UNAVAILABLE, "unexpected form of the broker's answer") from None
