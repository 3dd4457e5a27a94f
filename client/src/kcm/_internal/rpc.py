"""One request and its reply, within a deadline.

A reply counts when the receiver accepts it: a component can be paused between its last check and
its reply, so the *receiver* enforces the lease. A request gets at most ``WIRE_S`` seconds from its
sending, measured on a clock that also runs in suspend. A later reply is discarded. This bound is
part of the bound of a kill.

A failed request is repeated only if its code is retryable, after a wait with jitter, and within the
caller's deadline. The number of attempts is bounded, so that retries do not add to an overload. A
request that reached no component adds no load, so while a connection is re-established, retries
continue until the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kcm_runtime.clock import Clock, SystemClock
from kcm_runtime.nats.ports import NotAllowed
from kcm_schemas import data_subjects
from kcm_schemas.codec import Message, decode_unpacked, unpack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure

from kcm.errors import (
    DeadlineExceeded,
    Discarded,
    Forbidden,
    Internal,
    NotAccepted,
    ServiceError,
    Unreached,
    error_for,
    typed,
)

WIRE_S: Final = 5.0
"""Seconds from the sending of a data request in which its reply is accepted."""

ATTEMPT_MIN_S: Final = 0.5
"""Minimum seconds of an attempt, if the deadline allows it."""

ATTEMPTS_MAX: Final = 10
"""Attempts of one request. The limit bounds the load that retries add."""

BACKOFF_FIRST_S: Final = 0.02
"""Maximum seconds of the first wait; it doubles with each attempt."""

BACKOFF_MAX_S: Final = 1.0
"""Maximum seconds of any wait."""

REFUSED_S: Final = 1.0
"""Seconds in which every Gateway that answers has to repeat a refusal before it ends a call. An
entry that an operator has just signed arrives earlier."""

FAILURE_MAX: Final = 16 * 1024
"""Bytes of an encoded ``Failure``: its text has at most 2048 characters."""

Send = Callable[[str, bytes, float], Awaitable[bytes]]
"""Sends a body to a subject, as a ``Transport`` does; takes also a timeout in seconds."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Environment:
    """Clock, random numbers and sleep as ports, so that a test controls them."""

    clock: Clock = field(default_factory=SystemClock)
    chance: Callable[[], float] = random.random
    """A number of [0, 1) for jitter. It is not used for secrets."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def until(self, deadline_s: float) -> float:
        """Return the time, by ``clock.elapsed``, in ``deadline_s`` seconds."""
        if not 0 < deadline_s < float("inf"):
            raise ValueError("a deadline is a positive number of seconds")
        return self.clock.elapsed() + deadline_s


def attempt_s(remaining_s: float, at_most_s: float = WIRE_S) -> float:
    """Return the seconds for one attempt: half of the rest, so that a retry remains possible."""
    return min(at_most_s, remaining_s, max(remaining_s / 2, ATTEMPT_MIN_S))


def backoff_s(attempt: int, chance: float) -> float:
    """Return the seconds to wait after attempt ``attempt``, from 0 ("full jitter")."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16)) * chance


async def ask_once(
    around: Environment,
    send: Send,
    subject: str,
    build: Callable[[int], bytes],
    read: Callable[[bytes], tuple[T, float]],
    timeout_s: float,
) -> T:
    """Send ``build(deadline in Unix ms)`` and return the reply as ``read`` decodes it.

    ``read`` also returns the answer lease: the seconds from the sending of the request in which the
    reply may be accepted. Raises ``ServiceError``: ``Unreached`` if the request reached no
    component, ``Discarded`` for a reply that came too late.
    """
    if timeout_s <= 0:
        raise DeadlineExceeded("the deadline passed before the request was sent")
    try:
        body = build(around.clock.unix_ms() + max(1, int(timeout_s * 1000)))
        sent = around.clock.elapsed()
        try:
            raw = await send(subject, body, timeout_s)
        except NotAllowed as error:
            # What the broker knows of this client's credentials; nothing else would help.
            raise BrokerRefused(_not_allowed(subject, error.detail)) from None
        except NotAccepted:
            raise
        except KcmError as error:
            if error.code is Code.UNAVAILABLE:
                raise Unreached(error.detail) from None
            raise
        answer, lease_s = read(raw)
    except KcmError as error:
        raise typed(error) from None
    took_s = around.clock.elapsed() - sent
    if took_s > timeout_s:
        raise Discarded("the reply came too late and was discarded")
    if took_s >= lease_s:
        raise Discarded("the reply was discarded: its answer lease had ended when it came")
    return answer


class Refusals:
    """What Gateways claim about an application, attempt after attempt."""

    def __init__(self) -> None:
        self._claimed = ""
        self._since = 0.0

    def final(self, error: ServiceError, now: float) -> bool:
        """Whether an attempt failed as those before it, for ``REFUSED_S`` seconds.

        ``now`` is of the clock's ``elapsed``.
        """
        claimed = error.detail if isinstance(error, NotAccepted) else ""
        if not claimed or claimed != self._claimed:
            self._claimed, self._since = claimed, now
            return False
        return now - self._since >= REFUSED_S


class BrokerRefused(Forbidden):
    """The broker does not let the client send the request; no instance has seen it."""


def _not_allowed(subject: str, detail: str) -> str:
    """Return the text for a request that the broker refuses: a name may be mistyped."""
    asked = None
    for read in (data_subjects.read_gateway_at, data_subjects.read_data):
        with suppress(KcmError):
            asked = read(subject)
    if asked is None:
        return detail
    return (
        f"the broker does not let this client {asked.operation} for tenant {asked.tenant}, service"
        f" {asked.service}: its credentials have no such grant"
    )


async def pause(
    around: Environment, attempt: int, until: float, attempts_max: float = ATTEMPTS_MAX
) -> bool:
    """Wait before the next attempt. Return ``False`` if no attempt or no time is left."""
    wait = backoff_s(attempt, around.chance())
    if attempt + 1 >= attempts_max or around.clock.elapsed() + wait >= until:
        return False
    await around.sleep(wait)
    return True


def read_reply(model: type[M], body: bytes) -> M:
    """Decode a reply, or raise the error of a ``Failure`` in its place.

    Bytes that are neither raise ``internal``.
    """
    try:
        value = unpack(body)
        if not (isinstance(value, dict) and "error" in value):
            return decode_unpacked(model, value, body)
        failure = decode_unpacked(Failure, value, body, limit=FAILURE_MAX)
    except KcmError:
        raise Internal("the reply is not a message of this protocol") from None
    raise error_for(failure.error, failure.detail)
