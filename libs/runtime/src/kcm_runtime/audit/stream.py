"""A region's audit stream as the Cores use it: facts, reading, trimming."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors

from kcm_runtime.audit.stream_chain import created_us
from kcm_runtime.clock import Clock
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import LogFollower, Subscription
from kcm_runtime.nats.stream_follower import Follower

READ_BYTES_PER_S: Final = 8 * 1024 * 1024
"""Bytes a second at which a Core reads the stream. Live traffic is far below. A Core that lost its
state reads 1 GiB in two minutes beside its work, with bounded buffers."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A stream as the broker describes it.

    ``created`` is in microseconds since 1970, ``first`` and ``last`` are sequences (an empty stream
    has ``first = last + 1``), ``used`` and ``room`` are in bytes; a ``room`` of 0 means no bound.
    """

    created: int
    first: int
    last: int
    used: int
    room: int

    @property
    def fill(self) -> float:
        """The used share of the room; 0 if there is no bound."""
        return self.used / self.room if self.room else 0.0


class AuditStore(Protocol):
    """The audit stream, for components that may trim it. Raises ``KcmError`` ``unavailable``."""

    async def facts(self) -> StoreFacts:
        """Return the present state of the stream."""
        ...

    async def purge(self, through: int) -> None:
        """Delete every message up to and including ``through``. Idempotent."""
        ...

    def follow(self, follower: LogFollower) -> Subscription:
        """Deliver all messages in order, once ``Subscription.start`` was awaited."""
        ...


class AuditStream:
    """``AuditStore`` over NATS."""

    def __init__(self, connection: Connection, region: str, clock: Clock) -> None:
        self._connection: Final = connection
        self._subject: Final = subjects.audit_all(region)
        self._clock: Final = clock

    async def facts(self) -> StoreFacts:
        """Return the present state of the stream."""
        with _unavailable():
            info = await self._connection.jetstream().stream_info(subjects.AUDIT_STREAM)
            return StoreFacts(
                created=created_us(info.created),
                first=info.state.first_seq,
                last=info.state.last_seq,
                used=info.state.bytes,
                room=max(info.config.max_bytes or 0, 0),
            )

    async def purge(self, through: int) -> None:
        """Delete every message up to and including ``through``; raises ``ValueError`` for 0."""
        if through <= 0:
            raise ValueError(f"a purge through sequence {through} would delete everything")
        with _unavailable():
            # The broker keeps the message with the sequence in the request.
            await self._connection.jetstream().purge_stream(subjects.AUDIT_STREAM, seq=through + 1)

    def follow(self, follower: LogFollower) -> Follower:
        """Deliver all messages to ``follower`` once the result was started."""
        return Follower(
            self._connection,
            subjects.AUDIT_STREAM,
            self._subject,
            follower,
            self._clock,
            READ_BYTES_PER_S,
        )


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (nats_errors.Error, TimeoutError):
        failure = KcmError(Code.UNAVAILABLE, "no answer from the region's audit stream")
    except (ValueError, KeyError, TypeError, AttributeError):
        failure = KcmError(Code.UNAVAILABLE, "unexpected form of the broker's answer")
    else:
        return
    raise failure from None
