"""Serving requests: bounded, answered in an inbox, and visible to the standard ``nats`` tool.

The client library calls a subscription's callback for one message at a time, so each request gets a
task at once. Work begins in turns, one for each poll of the network, so that a flood of data
requests cannot delay a kill. An endpoint with a *lane* shares turns and room fairly between those
who ask (``kcm_runtime.nats.work_slots``); another one has at most ``IN_FLIGHT_MAX`` requests in
progress. What has no room is answered ``busy``. Each endpoint is counted. Every exception
becomes a code: no part of a request or of a traceback leaves the process.

The service protocol (``$SRV.PING``, ``INFO``, ``STATS``) is implemented here, because the library's
version sends ``repr(exception)`` to callers.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure

from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.fair_queue import Key
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Delivery
from kcm_runtime.nats.work_slots import Place, Turns, begin
from kcm_runtime.tasks import TaskSet

log = logging.getLogger(__name__)

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Takes subject and body, returns the reply's body or raises ``KcmError``."""

Lane = Callable[[bytes], Key]
"""Returns the lane of a message by what it states in clear; it is called for every message."""

IN_FLIGHT_MAX: Final = 256
"""Requests in progress of one endpoint without a lane; further ones are answered ``busy``."""

_FULL: Final = f"{IN_FLIGHT_MAX} requests of this kind are in progress; try again soon"
_STOPPING: Final = "the instance stops; ask another one"

DRAIN_S: Final = 10.0
"""Seconds that requests in progress have to finish when the component stops."""


@dataclass(slots=True)
class _Endpoint:
    name: str
    subject: str
    queue: str
    urgent: bool
    lane: Lane | None = None
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    busy_s: float = 0.0
    tasks: TaskSet = field(default_factory=TaskSet)


@dataclass(slots=True)
class RequestServer:
    """A set of endpoints on one connection."""

    connection: Connection
    clock: Clock
    name: str
    service_id: str
    version: str
    metadata: dict[str, str]
    state: Callable[[], Mapping[str, str]] = dict
    """Metadata that may change: it is read for each answer of the service protocol."""
    _turns: Turns = field(init=False)
    """All work for a request, also later parts of it, takes a turn first."""
    _endpoints: list[_Endpoint] = field(default_factory=list)
    _stopping: bool = False

    def __post_init__(self) -> None:
        """Begin to count."""
        self._turns = Turns(self.clock.unix_ms)

    async def add(
        self,
        name: str,
        subject: str,
        handler: Handler,
        queue: str,
        *,
        urgent: bool = False,
        lane: Lane | None = None,
    ) -> None:
        """Serve a subject in a queue group; ``urgent`` work begins before all other work.

        The handler of an endpoint with a ``lane`` calls ``work_slots.work`` when it knows who asks.
        """
        endpoint = _Endpoint(name, subject, queue, urgent, lane)
        self._endpoints.append(endpoint)

        async def receive(message: Delivery) -> None:
            if not subjects.is_inbox(message.reply):
                return
            try:
                place = self._enter(endpoint, message.data)
            except KcmError as error:
                await self._answer(message, endpoint, _failure(error), error.code)
                return
            endpoint.tasks.spawn(self._serve(message, endpoint, handler, place))

        await self.connection.subscribe(subject, receive, queue)

    async def announce(self) -> None:
        """Answer the service protocol."""
        for verb, view in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for suffix in ("", f".{self.name}", f".{self.name}.{self.service_id}"):
                await self.connection.subscribe(f"$SRV.{verb}{suffix}", self._tell(view))

    async def drain(self) -> None:
        """Accept no more requests, and finish those in progress."""
        for endpoint in self._endpoints:
            await self.connection.unsubscribe(endpoint.subject)
        await asyncio.gather(*(endpoint.tasks.join(DRAIN_S) for endpoint in self._endpoints))
        self._stopping = True

    def _enter(self, endpoint: _Endpoint, body: bytes) -> Place | None:
        """Return the place of a message, none for an urgent one; raises ``busy``."""
        if self._stopping:
            raise KcmError(Code.BUSY, _STOPPING)
        if endpoint.lane is None and len(endpoint.tasks) >= IN_FLIGHT_MAX:
            raise KcmError(Code.BUSY, _FULL)
        if endpoint.urgent:
            return None
        lane = endpoint.lane(body) if endpoint.lane else ()
        return Place(self._turns, (endpoint.name, *lane), len(body))

    async def _serve(
        self, message: Delivery, endpoint: _Endpoint, handler: Handler, place: Place | None
    ) -> None:
        try:
            if place is None:
                await self._turns.take(urgent=True)
            else:
                await place.turn()
                if endpoint.lane is None:
                    place.leave()
                else:
                    begin(place)
            await self._work(message, endpoint, handler)
        finally:
            if place is not None:
                place.leave()

    async def _work(self, message: Delivery, endpoint: _Endpoint, handler: Handler) -> None:
        started = self.clock.elapsed()
        code = Code.OK
        try:
            body = await handler(message.subject, message.data)
        except KcmError as error:
            body, code = _failure(error), error.code
        except Exception as error:  # noqa: BLE001 - the last line: a fault becomes a code
            log.error("a request failed: %s", describe(error), extra=fields(endpoint=endpoint.name))
            body, code = _failure(KcmError(Code.INTERNAL)), Code.INTERNAL
        endpoint.busy_s += self.clock.elapsed() - started
        await self._answer(message, endpoint, body, code)

    async def _answer(
        self, message: Delivery, endpoint: _Endpoint, body: bytes, code: Code
    ) -> None:
        endpoint.requests += 1
        if code is not Code.OK:
            endpoint.errors += 1
            endpoint.last_error = code.value
        try:
            await self.connection.publish(message.reply, body)
        except KcmError:
            log.warning("a reply could not be sent", extra=fields(endpoint=endpoint.name))

    def _tell(self, view: Callable[[], dict[str, Any]]) -> Callable[[Delivery], Awaitable[None]]:
        async def answer(message: Delivery) -> None:
            if subjects.is_inbox(message.reply):
                await self.connection.publish(message.reply, json.dumps(view()).encode())

        return answer

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind}",
            "name": self.name,
            "id": self.service_id,
            "version": self.version,
            "metadata": {**self.metadata, **self.state(), **self._store()},
        }

    def _store(self) -> dict[str, str]:
        """Return the streams that the broker does not store at the moment, for monitoring."""
        troubles = self.connection.stores.troubles
        said = ", ".join(f"{stream} {trouble}" for stream, trouble in sorted(troubles.items()))
        return {"store": said} if said else {}

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping_response")

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": e.name, "subject": e.subject, "queue_group": e.queue} for e in self._endpoints
        ]
        return {**self._identity("info_response"), "description": "", "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        endpoints = [
            {
                "name": e.name,
                "subject": e.subject,
                "queue_group": e.queue,
                "num_requests": e.requests,
                "num_errors": e.errors,
                "last_error": e.last_error,
                "processing_time": int(e.busy_s * 1e9),
                "average_processing_time": int(e.busy_s * 1e9 / e.requests) if e.requests else 0,
            }
            for e in self._endpoints
        ]
        return {**self._identity("stats_response"), "endpoints": endpoints}


def _failure(error: KcmError) -> bytes:
    return encode(Failure(v=1, error=error.code, detail=error.detail))
