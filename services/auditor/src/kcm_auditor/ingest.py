"""Reading a region's audit stream: in order, each message once, acknowledged when recorded.

Theory. A durable pull consumer tells the broker what this Auditor has recorded, but the journal is
what decides: a message counts by its sequence in the stream. The consumer is made anew where the
journal stands whenever it is bound. The broker counts its deliveries: when one of those numbers is
missing, a message was lost on its way and the consumer is made anew; when only a number of the
stream is missing, the message is missing in the stream.

A stream that was made anew or rolled back is read from its beginning: what the journal has already
is recognised. A stream that went back may be longer again when it is looked at. So a consumer
begins with the last message that was recorded, and what lies there now has to be that one, byte by
byte, also where it is not believed or says nothing new. Where that message was trimmed, the trim's
digest is what can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.stream_chain import created_us
from kcm_runtime.error_text import describe
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import check_streams
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import StreamMissing, last
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from kcm_auditor.chain_checker import Arrival, Verdict
from kcm_auditor.positions import MESSAGES_KEPT

log = logging.getLogger(__name__)

FETCH_MAX: Final = 32
"""Messages in one request to the broker: 28 MiB at most, and one flush of the journal."""

FETCH_S: Final = 2.0
"""Seconds that one request to the broker waits; also how soon a lost one is noticed."""

IDLE_FETCHES: Final = 5
"""Requests without a message after which the consumer and the stream are looked at again."""

ACK_WAIT_S: Final = 30.0
"""Seconds after which the broker sends again what was not acknowledged."""

RETRY_S: Final = 0.2
"""Seconds before a consumer is tried again; doubles."""

RETRY_MAX_S: Final = 5.0
"""Seconds between attempts at most."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the broker says of a stream: when it was made, its last and first sequence, its bytes.

    ``made`` is ``created`` in microseconds since 1970; ``room`` is 0 where there is no bound.
    """

    created: str
    last: int
    first: int = 0
    used: int = 0
    room: int = 0
    made: int = 0


class Sink(Protocol):
    """Where a region's messages go. What returns has been flushed to the disk."""

    def position(self, region: str) -> int:
        """Up to where the region's stream is recorded."""
        ...

    def compare(self, region: str, facts: StreamFacts) -> Verdict:
        """How the stream compares with what is recorded. Changes nothing."""
        ...

    async def opened(self, region: str, facts: StreamFacts, acknowledged: int) -> None:
        """Record that the stream is read from now on, and whatever is wrong with it."""

    def recorded(self, arrival: Arrival) -> bool:
        """Whether a message is the one that was recorded at its place.

        Where that one is not known: whether it has no events that are not recorded.
        """
        ...

    async def went_back(self, region: str, first: int) -> None:
        """Record that something else lies at ``first`` than was recorded: all is read again."""

    async def trimmed(self, region: str, statement: bytes, facts: StreamFacts) -> None:
        """Note the last trim as it lies in the region's control stream, if it is believed."""

    def noticed(self, region: str, facts: StreamFacts) -> None:
        """How full the stream is, for whoever asks."""

    async def take(self, arrivals: Sequence[Arrival]) -> None:
        """Record messages, in the order of the stream."""

    def reachable(self, region: str, *, up: bool) -> None:
        """Whether the stream can be read at the moment."""


class _Anew(Exception):
    """The consumer has to be looked at again. The text says why."""


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
        # Cancelling is not enough: ``asyncio.wait_for`` of Python 3.11, which the client library
        # waits with, forgets that it was cancelled when a message arrives at the same moment.
        self._stopping: Final = stopping
        self._connection: Final = connection
        self._region: Final = region
        self._durable: Final = durable
        self._sink: Final = sink
        self._emit: Final = emit
        self._weak = ""
        self._delivered = 0
        self._acknowledged = 0
        self._again = False

    async def run(self) -> None:
        """Read, with back-off while the broker or the stream is not there."""
        wait = RETRY_S
        while not self._stopping.is_set():
            try:
                subscription = await self._bind()
                try:
                    self._sink.reachable(self._region, up=True)
                    wait = RETRY_S
                    await self._read(subscription)
                finally:
                    with contextlib.suppress(nats_errors.Error, KcmError):
                        await subscription.unsubscribe()
            except _Anew as reason:
                log.info("region %s: %s", self._region, reason)
                await asyncio.sleep(RETRY_S)
                continue
            except js_errors.NotFoundError:
                log.warning(
                    "region %s has no stream %s: provision the region, or restore its backup",
                    self._region,
                    subjects.AUDIT_STREAM,
                )
            except (nats_errors.Error, KcmError, TimeoutError, OSError) as error:
                log.warning("region %s cannot be read: %s", self._region, describe(error))
            self._sink.reachable(self._region, up=False)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(wait * 2, RETRY_MAX_S)

    async def _bind(self) -> JetStreamContext.PullSubscription:
        """Make the consumer stand where the journal stands."""
        await self._check()
        js = self._connection.jetstream()
        facts = await self._facts(js)
        verdict = self._sink.compare(self._region, facts)
        start = self._sink.position(self._region) if verdict is Verdict.SAME else 0
        existing = await self._existing(js)
        if existing is not None and existing.ack_floor:
            # Kept until it was handed over: the consumer forgets it now.
            self._acknowledged = max(self._acknowledged, existing.ack_floor.stream_seq)
        with _foreign():
            if existing is not None:
                await js.delete_consumer(subjects.AUDIT_STREAM, self._durable)
            # With the last message that was recorded: whether it is still the same.
            await js.add_consumer(subjects.AUDIT_STREAM, self._config(max(start, 1)))
        self._delivered = 0
        # A broker cut off from the others answers with old facts for a while, but cannot have made
        # a consumer; what it said counts only when it says the same afterwards.
        again = await self._facts(js)
        if self._sink.compare(self._region, again) is not verdict:
            raise _Anew("the broker contradicts itself about the stream")
        await self._sink.opened(self._region, again, self._acknowledged)
        self._acknowledged = 0
        before = self._sink.position(self._region)
        await self._look_for_trim(again)
        if self._sink.position(self._region) < before:
            raise _Anew("the stream is read again from its last trim")
        return await js.pull_subscribe_bind(consumer=self._durable, stream=subjects.AUDIT_STREAM)

    async def _check(self) -> None:
        """Record it when the stream lacks protection, once for each change, and read on.

        An Auditor that stopped would do what whoever took the protection away may want.
        """
        try:
            await check_streams(self._connection, self._region, (subjects.AUDIT_STREAM,))
            weak = ""
        except Unfit as error:
            weak = str(error)
        except StreamMissing:
            raise js_errors.NotFoundError from None
        if weak and weak != self._weak:
            log.error("region %s: %s", self._region, weak)
            self._emit(EventType.STREAM_WEAK, code=Code.UNAVAILABLE, detail=self._region)
        self._weak = weak

    async def look(self) -> StreamFacts:
        """Notice how full the stream is and what was trimmed; raises ``KcmError``, NATS's errors.

        Where the chain can be read again from a trim, the consumer is made anew.
        """
        facts = await self._facts(self._connection.jetstream())
        self._sink.noticed(self._region, facts)
        before = self._sink.position(self._region)
        await self._look_for_trim(facts)
        if self._sink.position(self._region) < before:
            self._again = True
        return facts

    async def _look_for_trim(self, facts: StreamFacts) -> None:
        """Hand over the last trim. Where messages are missing, none is read without asking."""
        try:
            entry = await last(
                self._connection, subjects.CONTROL_STREAM, subjects.control_trim(self._region)
            )
        except KcmError:
            if facts.first > self._sink.position(self._region) + 1:
                raise
            log.warning("region %s: whether it was trimmed cannot be read", self._region)
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
            # The name beside the durable one: only then does the request's subject bear it, so
            # that the broker can keep others from touching this consumer.
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
                # A consumer that somebody deleted is as quiet as one without messages.
                idle += 1
                if idle >= IDLE_FETCHES or not self._connection.connected:
                    raise _Anew("nothing came for a while") from None
                continue
            idle = 0
            await self._record(messages)
            if self._again:
                self._again = False
                raise _Anew("the stream is read again from its last trim")

    async def _record(self, messages: list[Msg]) -> None:
        """Record and acknowledge; raises ``_Anew`` where a delivery is missing."""
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
            raise _Anew("the stream went back: it is read from its beginning")
        for message in messages[:received]:
            await message.ack()
        if received < len(messages):
            raise _Anew("a message was lost on its way")


@contextlib.contextmanager
def _foreign() -> Iterator[None]:
    """An answer in another form is the broker's fault and must not end the Auditor."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KcmError(Code.UNAVAILABLE, "the broker's answer has another form") from None
