"""The chain of audit events, and the bounded buffer that feeds it. Pure.

Events of one incarnation count from 1. Each event's hash covers the previous hash and the event,
beginning with 32 zero bytes, so that every reader of the next event detects a changed, missing or
inserted one.

A full buffer drops the newest event *and uses up its number*: the loss stays visible as a gap in
the numbers although the hashes continue. Continuing hashes distinguish a loss that the emitter
admits from events that another party removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from kcm_schemas import labels, limits
from kcm_schemas.audit import GENESIS
from kcm_schemas.labels import ctx

BATCH_BYTES_MAX: Final = 512 * 1024
"""Bytes of events in one batch, so that the signed statement stays below ``BODY_MAX``."""

EVENTS_MAX: Final = 20_000
"""Waiting events: several seconds of a busy instance during an outage of the broker."""

BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of waiting events: bounds memory when details are long."""

ROOM_SHARE: Final = 0.8
"""Share of either bound above which data requests are refused; the rest is reserved for purges."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The state of a chain: the number of the next event and the hash before it."""

    next_seq: int = 1
    head: bytes = GENESIS

    def append(self, event: bytes) -> Chain:
        """Return the chain with one more event."""
        return Chain(self.next_seq + 1, link(self.head, event))

    def extend(self, events: Sequence[bytes]) -> Chain:
        """Return the chain with more events."""
        chain = self
        for event in events:
            chain = chain.append(event)
        return chain


def link(previous: bytes, event: bytes) -> bytes:
    """Return ``SHA-256(ctx("kcm/v1/audit-chain", previous, event))``."""
    return sha256(ctx(labels.AUDIT_CHAIN, previous, event)).digest()


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive events: the content of one batch."""

    first: int
    previous: bytes
    events: list[bytes]


class EventBuffer:
    """Events that wait to be sent: bounded in number and bytes, never blocking."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max: Final = events_max
        self._bytes_max: Final = bytes_max
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._next_seq = 1
        self._chain = Chain()
        self.dropped = 0
        """Events dropped since ``note_reported``."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether work may begin that causes events."""
        return (
            len(self._waiting) < self._events_max * ROOM_SHARE
            and self._bytes < self._bytes_max * ROOM_SHARE
        )

    @property
    def fills_batch(self) -> bool:
        """Whether the next batch is full already."""
        return len(self._waiting) >= limits.AUDIT_EVENTS_MAX or self._bytes >= BATCH_BYTES_MAX

    def add(self, event: bytes) -> bool:
        """Number an event and keep it; returns ``False`` if it was dropped."""
        seq = self._next_seq
        self._next_seq += 1
        if (
            len(event) > limits.AUDIT_EVENT_MAX
            or len(self._waiting) >= self._events_max
            or self._bytes + len(event) > self._bytes_max
        ):
            self.dropped += 1
            return False
        self._waiting.append((seq, event))
        self._bytes += len(event)
        return True

    def note_reported(self) -> None:
        """Note that an event reports the losses so far."""
        self.dropped = 0

    def take(self) -> Run | None:
        """Remove the next run of consecutive events; returns ``None`` if none waits."""
        if not self._waiting:
            return None
        first, size, events = self._waiting[0][0], 0, list[bytes]()
        while self._waiting and len(events) < limits.AUDIT_EVENTS_MAX:
            seq, event = self._waiting[0]
            if seq != first + len(events) or (events and size + len(event) > BATCH_BYTES_MAX):
                break
            self._waiting.popleft()
            events.append(event)
            size += len(event)
        self._bytes -= size
        run = Run(first, self._chain.head, events)
        self._chain = Chain(first, self._chain.head).extend(events)
        return run
