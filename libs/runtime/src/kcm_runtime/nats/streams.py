"""Writing to a stream, and the control stream's port; only acknowledged writes count."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js import errors as js_errors

from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.connect_failures import Refused
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import is_conflict, is_full, is_no_message
from kcm_runtime.nats.ports import Entry, LogFollower, NotAllowed, StreamLeader
from kcm_runtime.nats.store_health import CAUSE, Trouble
from kcm_runtime.nats.stream_follower import Follower

log = logging.getLogger(__name__)

FORGOTTEN: Final = (
    "the broker acknowledged a message and does not have it: its disk is damaged; restart the "
    "broker, and do this again"
)
"""The problem of a store that loses acknowledged messages, and the remedy: ``Storage faults`` in
``docs/deployment.md``."""


class ControlLog:
    """A region's control stream for the kill switch: the port ``Log`` over NATS."""

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
        """Return the last message of a subject as the stream's leader has it, or ``None``."""
        return await last(self._connection, subjects.CONTROL_STREAM, subject)

    async def leading(self) -> StreamLeader:
        """Return the node that answers for the stream, and how many messages it counts."""
        with _store_errors(self._connection):
            info = await self._connection.jetstream().stream_info(subjects.CONTROL_STREAM)
            node = info.cluster.leader if info.cluster is not None else None
            return StreamLeader(node or "", info.state.messages)

    async def move(self) -> None:
        """Go to another node of the broker: this one may be in a minority."""
        await self._connection.move()

    def follow(self, follower: LogFollower) -> Follower:
        """Deliver all messages to ``follower`` once the result was started."""
        return Follower(
            self._connection, subjects.CONTROL_STREAM, self._subject, follower, self._clock
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
    """Store one message and return its acknowledged sequence.

    ``expected`` is the last sequence of this subject (0: none); ``ttl`` lets the message expire, as
    in ``60s``. Raises ``conflict`` if ``expected`` is wrong, and ``unavailable`` without a
    valid acknowledgement: the message may be stored nevertheless. ``StoreFull`` is the
    ``unavailable`` of a broker that reports no room.
    """
    headers: dict[str, str] = {}
    if expected is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
    if ttl is not None:
        headers["Nats-TTL"] = ttl
    stores = connection.stores
    with _store_errors(connection):
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
    """Store as ``put`` does; ``unavailable`` if the stream does not have what it acknowledged.

    A server that lost a subject's last message to a damaged disk acknowledges the next ones and
    drops them until it restarts. For messages that are not delivered to their writer.
    """
    sequence = await put(connection, subject, body, expected=expected)
    stored = await last(connection, stream, subject)
    if stored is None or stored.sequence < sequence:
        log.critical(
            "an acknowledged message is lost: %s",
            FORGOTTEN,
            extra=fields(stream=stream, sequence=sequence),
        )
        raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
    return sequence


async def last(connection: Connection, stream: str, subject: str) -> Entry | None:
    """Return the last message of a subject as the stream's leader has it, or ``None``.

    Raises ``unavailable`` if the stream itself is missing: it never counts as an empty one.
    """
    with _store_errors(connection):
        try:
            message = await connection.jetstream().get_last_msg(stream, subject)
        except js_errors.NotFoundError as error:
            if is_no_message(error):
                return None
            raise
        if not message.seq or message.subject != subject:
            raise ValueError("the reply is for another subject")
        return Entry(message.seq, subject, message.data or b"")


async def ever_had(connection: Connection, stream: str) -> bool:
    """Whether a stream ever had a message, by its leader; raises ``unavailable``."""
    with _store_errors(connection):
        info = await connection.jetstream().stream_info(stream)
        return bool(info.state.last_seq)


@contextlib.contextmanager
def _store_errors(connection: Connection) -> Iterator[None]:
    """Turn errors of the client library, also over malformed answers, into ``unavailable``."""
    try:
        yield
    except KcmError:
        raise
    except js_errors.APIError as error:
        refused = KcmError(
            Code.UNAVAILABLE, f"the region's store rejected the request{connection.over}"
        )
        failure = StoreFull() if is_full(error) else refused
    except Refused:
        failure = NotAllowed()
    except (nats_errors.Error, TimeoutError):
        failure = KcmError(
            Code.UNAVAILABLE, f"the region's store cannot be reached{connection.over}"
        )
    except Exception as error:  # noqa: BLE001 - an answer that the library cannot read
        log.warning("the store's answer is not readable: %s", describe(error))
        failure = KcmError(
            Code.UNAVAILABLE, f"the answer of the region's store is not readable{connection.over}"
        )
    else:
        return
    raise failure from None
