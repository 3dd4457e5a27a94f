"""Following a stream, and writing to it, without believing more than the broker acknowledged.

``Follower`` is an ordered consumer of our own: an ephemeral push consumer without acknowledgements,
whose deliveries are counted. When a number is missing, when heartbeats stop, or when the connection
comes back, a new consumer continues behind the follower's anchor. The client library's key-value
watch was deaf for up to 18 seconds after a server restart; this resumes within a second.

A stream that ends before its anchor, or that was created anew, went back: behind the anchor nothing
would ever come. It is read from its start again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy

from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import is_conflict, is_full, is_no_message, is_no_stream
from kcm_runtime.nats.ports import Entry, Leading, LogFollower
from kcm_runtime.nats.store_health import CAUSE, Trouble

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 0.5
"""Seconds between the broker's signs of life on an idle consumer."""

SILENCE_S: Final = 1.5
"""Seconds without message or heartbeat after which a consumer is made anew."""

REACH_S: Final = 5.0
"""Seconds to wait for a position that was acknowledged: it is delivered at once, or not at all."""

CLOSE_S: Final = 5.0
"""Seconds that a follower gets to end."""

FORGOTTEN: Final = (
    "the broker acknowledged a message and does not have it: its disk is damaged; restart the "
    "broker, and do this again"
)
"""What is wrong with a store that forgets, and what to do: ``Storage faults`` in
``docs/deployment.md``."""

_HEARTBEAT: Final = "100"

Receive = Callable[[Entry], None]
"""Called in the order of the stream, synchronously: no await between arrival and effect. Must not
raise: an entry is delivered once."""


class SequentialFollower:
    """A ``LogFollower`` that goes on behind the last delivery, and only receives."""

    def __init__(self, receive: Receive) -> None:
        self._receive: Final = receive
        self._last = 0

    def anchor(self) -> int:
        """The last delivery."""
        return self._last

    def resumed(self, behind: int) -> None:
        """Go on from there."""
        self._last = behind

    def went_back(self) -> None:
        """Read everything again."""
        self._last = 0

    def receive(self, entry: Entry) -> None:
        """Hand it on."""
        self._last = entry.sequence
        self._receive(entry)


class ControlLog:
    """A region's control stream, as the kill switch uses it: the port ``Log`` over NATS."""

    def __init__(self, connection: Connection, region: str, clock: Clock) -> None:
        self._connection: Final = connection
        self._subject: Final = subjects.control_all(region)
        self._clock: Final = clock

    async def put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        """Store one message and return its sequence, acknowledged."""
        return await put(self._connection, subject, body, expected=expected, ttl=ttl)

    async def last(self, subject: str) -> Entry | None:
        """The last message of a subject as the stream's leader has it, or ``None``."""
        return await last(self._connection, subjects.CONTROL_STREAM, subject)

    async def leading(self) -> Leading:
        """Which node answers for the stream, and how many messages it counts."""
        with _store_errors():
            info = await self._connection.jetstream().stream_info(subjects.CONTROL_STREAM)
            node = info.cluster.leader if info.cluster is not None else None
            return Leading(node or "", info.state.messages)

    async def move(self) -> None:
        """Go to another node of the broker: this one may be in a minority."""
        await self._connection.move()

    def follow(self, follower: LogFollower) -> Follower:
        """Deliver everything to ``follower`` once the result was started."""
        return Follower(
            self._connection, subjects.CONTROL_STREAM, self._subject, follower, self._clock
        )


class Follower:
    """Delivers all messages of a stream under ``subject``, from the first one on."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subject: str,
        follower: LogFollower,
        clock: Clock,
        bytes_per_s: int | None = None,
    ) -> None:
        """``bytes_per_s`` is how fast the broker may send; ``None`` is as fast as it can."""
        self._connection: Final = connection
        self._stream: Final = stream
        self._subject: Final = subject
        self._follower: Final = follower
        self._clock: Final = clock
        self._bits_per_s: Final = None if bytes_per_s is None else 8 * bytes_per_s
        self._closing = False
        self._created: datetime | None = None
        self._last = 0
        self._stored = 0
        self._delivered = 0
        self._heard = 0.0
        self._again = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """Stream sequence up to which everything was delivered."""
        return self._last

    def again(self) -> None:
        """Make the consumer anew, from the anchor."""
        self._again.set()

    async def reached(self, sequence: int, timeout_s: float = REACH_S) -> None:
        """Wait until everything through ``sequence`` is delivered; raises ``unavailable``."""
        until = self._clock.elapsed() + timeout_s
        while self._last < sequence:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), until - self._clock.elapsed())
            except TimeoutError:
                raise KcmError(Code.UNAVAILABLE, "the region's stream is not delivered") from None

    async def start(self) -> None:
        """Begin, and return once everything that was stored before is delivered."""
        self._connection.on_reconnect(self._again.set)
        self._task = asyncio.get_running_loop().create_task(self._run())
        caught_up = asyncio.get_running_loop().create_task(self._caught_up.wait())
        await asyncio.wait({self._task, caught_up}, return_when=asyncio.FIRST_COMPLETED)
        caught_up.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Stop following."""
        # A flag and not only cancellation: the client library may swallow that.
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_S)

    async def _run(self) -> None:
        wait = 0.1
        while not self._closing:
            self._again.clear()
            try:
                async with self._consumer():
                    wait = 0.1
                    await self._listen()
                continue
            except js_errors.NotFoundError as error:
                if is_no_stream(error) and not self._caught_up.is_set():
                    raise StreamMissing(self._stream) from None
                level = logging.CRITICAL if is_no_stream(error) else logging.WARNING
                log.log(level, "the broker lacks the stream %s, or its consumer", self._stream)
            except Exception as error:  # noqa: BLE001 - who stops following hears no kill any more
                log.warning("following %s: %s", self._stream, describe(error))
            await asyncio.sleep(wait)
            wait = min(wait * 2, 2.0)

    async def _listen(self) -> None:
        """Return when the consumer has to be made anew."""
        while self._clock.elapsed() - self._heard < SILENCE_S and not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), HEARTBEAT_S)
            if self._again.is_set():
                return
        if not self._closing:
            log.warning("following %s: no sign of life, asking anew", self._stream)

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[None]:
        client = self._connection.client
        inbox = client.new_inbox()
        self._delivered = 0
        self._heard = self._clock.elapsed()
        subscription = await client.subscribe(inbox, cb=self._on_message)
        try:
            first = await self._continue_at()
            info = await self._connection.jetstream().add_consumer(
                self._stream,
                ConsumerConfig(
                    deliver_subject=inbox,
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=first,
                    ack_policy=AckPolicy.NONE,
                    max_deliver=1,
                    replay_policy=ReplayPolicy.INSTANT,
                    filter_subject=self._subject,
                    idle_heartbeat=HEARTBEAT_S,
                    rate_limit_bps=self._bits_per_s,
                    inactive_threshold=30.0,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
            if not (info.num_pending or self._delivered):
                self._caught_up.set()
            yield
        finally:
            with contextlib.suppress(nats_errors.Error, KcmError):
                await subscription.unsubscribe()

    async def _continue_at(self) -> int:
        """The sequence to continue at: 1 when the stream is not what was seen before."""
        info = await self._connection.jetstream().stream_info(self._stream)
        behind = self._follower.anchor()
        anew = self._created not in (None, info.created)
        self._created = info.created
        self._stored = info.state.last_seq
        if anew or info.state.last_seq < behind:
            log.error("the stream %s went back, it is read from its start", self._stream)
            self._follower.went_back()
            behind = 0
        self._last = behind
        self._follower.resumed(behind)
        return behind + 1

    async def _on_message(self, message: Msg) -> None:
        self._heard = self._clock.elapsed()
        if message.headers and message.headers.get("Status") == _HEARTBEAT:
            self._on_heartbeat(message.headers)
            return
        sequence = message.metadata.sequence
        if sequence.consumer != self._delivered + 1:
            self._again.set()
            return
        self._delivered = sequence.consumer
        try:
            stored_ms = int(message.metadata.timestamp.timestamp() * 1000)
            self._follower.receive(Entry(sequence.stream, message.subject, message.data, stored_ms))
        except Exception as error:  # noqa: BLE001 - the client library would hide it
            log.critical("an entry of %s had no effect: %s", self._stream, describe(error))
        self._last = sequence.stream
        self._progress.set()
        if message.metadata.num_pending == 0:
            self._caught_up.set()

    def _on_heartbeat(self, headers: Mapping[str, str]) -> None:
        """Nothing is to be delivered now: see whether all arrived, and whether that was all.

        A message that is damaged on the broker's disk is counted as pending and never delivered,
        by a new consumer neither: by that count alone this would never have caught up.
        """
        if int(headers.get("Nats-Last-Consumer", "0")) > self._delivered:
            self._again.set()
        elif not self._caught_up.is_set():
            if int(headers.get("Nats-Last-Stream", "0")) < self._stored:
                self._again.set()  # a new consumer counts anew
                return
            log.warning(
                "the broker counts messages of %s that it does not deliver: they expired meanwhile "
                "or are damaged on its disk (Storage faults in docs/deployment.md)",
                self._stream,
            )
            self._caught_up.set()


class StreamMissing(Exception):
    """The stream or bucket does not exist. It is never taken for an empty one."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"the broker has no stream {stream}: provision the region, or restore its backup"
        )


class StoreFull(KcmError):
    """The broker has no room: ``unavailable`` until space is freed or the bound is raised."""

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, CAUSE[Trouble.FULL])


async def put(
    connection: Connection,
    subject: str,
    body: bytes,
    *,
    expected: int | None = None,
    ttl: str | None = None,
) -> int:
    """Store one message and return its sequence, acknowledged.

    ``expected`` is the last sequence of this subject (0: none); ``ttl`` lets the message expire, as
    in ``60s``. Raises ``conflict`` when it is not, and ``unavailable`` when nobody acknowledged in
    a way that can be understood: the message may be stored all the same. ``StoreFull`` is the
    ``unavailable`` of a broker that said that there is no room.
    """
    headers: dict[str, str] = {}
    if expected is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
    if ttl is not None:
        headers["Nats-TTL"] = ttl
    stores = connection.stores
    with _store_errors():
        try:
            ack = await connection.jetstream().publish(subject, body, headers=headers or None)
        except js_errors.APIError as error:
            if is_conflict(error):
                stores.stored(subject)
                raise KcmError(Code.CONFLICT) from None
            if is_full(error):
                stores.full(subject)
                raise StoreFull from None
            raise
        except nats_errors.TimeoutError:
            if connection.connected and stores.silent(subject):
                raise KcmError(Code.UNAVAILABLE, CAUSE[Trouble.SILENT]) from None
            raise
        stores.stored(subject)
        if not isinstance(ack.seq, int) or ack.seq <= 0:
            raise ValueError("an acknowledgement without a sequence")
        return ack.seq


async def keep(
    connection: Connection, stream: str, subject: str, body: bytes, *, expected: int
) -> int:
    """As ``put``, and ``unavailable`` where the stream does not have what it acknowledged.

    A server that lost a subject's last message to a damaged disk acknowledges the next ones and
    drops them, until it is restarted. For what is not delivered to whoever wrote it.
    """
    sequence = await put(connection, subject, body, expected=expected)
    stored = await last(connection, stream, subject)
    if stored is None or stored.sequence < sequence:
        log.critical("%s lost what it acknowledged; %s", stream, FORGOTTEN)
        raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
    return sequence


async def last(connection: Connection, stream: str, subject: str) -> Entry | None:
    """The last message of a subject as the stream's leader has it, or ``None``.

    Raises ``unavailable`` when the stream itself is missing: it is never taken for an empty one.
    """
    with _store_errors():
        try:
            message = await connection.jetstream().get_last_msg(stream, subject)
        except js_errors.NotFoundError as error:
            if is_no_message(error):
                return None
            raise
        if not message.seq or message.subject != subject:
            raise ValueError("an answer to another question")
        return Entry(message.seq, subject, message.data or b"")


async def ever_had(connection: Connection, stream: str) -> bool:
    """Whether a stream ever had a message, kept or not, as its leader says; or ``unavailable``."""
    with _store_errors():
        info = await connection.jetstream().stream_info(stream)
        return bool(info.state.last_seq)


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Turn what the client library raises, over a garbled answer too, into ``unavailable``."""
    try:
        yield
    except KcmError:
        raise
    except js_errors.APIError as error:
        refused = KcmError(Code.UNAVAILABLE, "the region's store refused")
        failure = StoreFull() if is_full(error) else refused
    except (nats_errors.Error, TimeoutError):
        failure = KcmError(Code.UNAVAILABLE, "the region's store cannot be reached")
    except Exception as error:  # noqa: BLE001 - an answer that the library cannot read
        log.warning("the store's answer is not understood: %s", describe(error))
        failure = KcmError(Code.UNAVAILABLE, "the region's store cannot be understood")
    else:
        return
    raise failure from None
