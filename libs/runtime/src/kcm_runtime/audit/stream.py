"""A region's audit stream as the Cores keep it in bounds: facts, reading, emptying."""

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
from kcm_runtime.nats.ports import Following, LogFollower
from kcm_runtime.nats.streams import Follower

READ_BYTES_PER_S: Final = 8 * 1024 * 1024
"""Bytes a second at which a Core reads the stream. What is new is far below; after the loss of what
it remembered, a Core reads 1 GiB in two minutes beside its work and with bounded buffers."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A stream as the broker tells of it.

    ``created`` is in microseconds since 1970, ``first`` and ``last`` are sequences (an emptied
    stream has ``first = last + 1``), ``used`` and ``room`` are bytes; ``room`` 0 has no bound.
    """

    created: int
    first: int
    last: int
    used: int
    room: int

    @property
    def fill(self) -> float:
        """The share of the room that is used; 0 where there is no bound."""
        return self.used / self.room if self.room else 0.0


class AuditStore(Protocol):
    """The audit stream, to whoever may empty it. Raises ``KcmError`` with ``unavailable``."""

    async def facts(self) -> StoreFacts:
        """What the stream is like now."""
        ...

    async def purge(self, through: int) -> None:
        """Delete every message up to and with ``through``; again, that changes nothing."""
        ...

    def follow(self, follower: LogFollower) -> Following:
        """Deliver everything, in order, once ``Following.start`` was awaited."""
        ...


class AuditStream:
    """``AuditStore`` over NATS."""

    def __init__(self, connection: Connection, region: str, clock: Clock) -> None:
        self._connection: Final = connection
        self._subject: Final = subjects.audit_all(region)
        self._clock: Final = clock

    async def facts(self) -> StoreFacts:
        """What the stream is like now."""
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
        """Delete every message up to and with ``through``."""
        if through <= 0:
            raise ValueError("a purge without a sequence would take everything")
        with _unavailable():
            # The broker keeps the message of the sequence that it is told.
            await self._connection.jetstream().purge_stream(subjects.AUDIT_STREAM, seq=through + 1)

    def follow(self, follower: LogFollower) -> Follower:
        """Deliver everything to ``follower`` once the result was started."""
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
        failure = KcmError(Code.UNAVAILABLE, "the region's audit stream does not answer")
    except (ValueError, KeyError, TypeError, AttributeError):
        failure = KcmError(Code.UNAVAILABLE, "the broker's answer has another form")
    else:
        return
    raise failure from None
