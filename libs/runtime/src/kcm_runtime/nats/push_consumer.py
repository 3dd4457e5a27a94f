"""A named ephemeral consumer that the broker pushes to an inbox, without acknowledgements.

A named consumer has stream and filter in the subject of the request that makes it, so that the
broker can compare them with what a client may follow. A pull consumer would need the right to ask
for the next message, which can delete any stream of the account by a reply subject.

The broker numbers the deliveries, and sends heartbeats while there are none. A message that is lost
between them, or dropped by the client library at its bounds, is a missing number.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from kcm_schemas.codes import KcmError
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, ReplayPolicy

from kcm_runtime.nats.connection import Connection

HEARTBEAT_S: Final = 0.5
"""Seconds between the broker's heartbeats on an idle consumer."""

SILENCE_S: Final = 1.5
"""Seconds without message or heartbeat after which a consumer is recreated."""

INACTIVE_S: Final = 30.0
"""Seconds without a subscriber after which the broker deletes a consumer."""

_HEARTBEAT: Final = "100"


class PushConsumer:
    """A consumer that exists. ``pending`` counts the messages that were stored before it."""

    def __init__(self, info: ConsumerInfo, unsubscribe: Callable[[], Awaitable[None]]) -> None:
        self.pending: Final = info.num_pending or 0
        self._unsubscribe: Final = unsubscribe

    async def stop(self) -> None:
        """Receive no more messages; the broker deletes the consumer later."""
        with contextlib.suppress(nats_errors.Error, KcmError):
            await self._unsubscribe()


@contextlib.asynccontextmanager
async def push_consumer(
    connection: Connection,
    stream: str,
    subject: str,
    first: int,
    receive: Callable[[Msg], Awaitable[None]],
    *,
    prefix: str = "",
    bytes_per_s: int | None = None,
) -> AsyncIterator[PushConsumer]:
    """Call ``receive`` for each message of ``subject`` from sequence ``first`` on, and heartbeats.

    ``prefix`` begins the consumer's name, the rest of which is random; ``bytes_per_s`` limits the
    broker's rate. Raises ``unavailable`` and the client library's errors.
    """
    client = connection.client
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=receive)
    stopped = False

    async def unsubscribe() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            await subscription.unsubscribe()

    try:
        info = await connection.jetstream().add_consumer(
            stream,
            ConsumerConfig(
                name=prefix + inbox.rpartition(".")[2],
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=first,
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                replay_policy=ReplayPolicy.INSTANT,
                filter_subject=subject,
                idle_heartbeat=HEARTBEAT_S,
                rate_limit_bps=None if bytes_per_s is None else 8 * bytes_per_s,
                inactive_threshold=INACTIVE_S,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        yield PushConsumer(info, unsubscribe)
    finally:
        with contextlib.suppress(nats_errors.Error, KcmError):
            await unsubscribe()


def heartbeat(message: Msg) -> Mapping[str, str] | None:
    """Return the headers of a heartbeat; ``None`` for a message of the stream."""
    headers = message.headers
    return headers if headers and headers.get("Status") == _HEARTBEAT else None


def sent(headers: Mapping[str, str]) -> int:
    """Return the number of the consumer's last delivery, by a heartbeat."""
    return int(headers.get("Nats-Last-Consumer", "0"))
