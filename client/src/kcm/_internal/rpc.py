"""One question and its answer, in time.

Release is acceptance: a service can be paused between its last check and its answer, so the
*receiver* decides. A wire request is given at most ``WIRE_S`` seconds from the moment it is sent,
measured here on a clock that also runs in suspend; an answer that comes later is discarded, however
well it looks. That bound is part of the bound claimed for a kill.

A failed question is asked again only when its code says that this can help, after a wait with
jitter, and only within the caller's own deadline. How often is bounded, so that nobody adds to an
overload; what reached nobody adds nothing, so a connection that is made anew is waited for as long
as the deadline allows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kcm_runtime.clock import Clock, SystemClock
from kcm_schemas.codec import Message, decode_unpacked, unpack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure

from kcm._internal.transport import Transport
from kcm.errors import DeadlineExceeded, Discarded, Internal, Unreached, error_for, typed

WIRE_S: Final = 5.0
"""Seconds from the sending of a data request within which its answer is accepted."""

ATTEMPT_MIN_S: Final = 0.5
"""Seconds that an attempt gets at least, while the deadline leaves them."""

ATTEMPTS_MAX: Final = 10
"""Attempts of one request: bounds what a client adds to an overload."""

BACKOFF_FIRST_S: Final = 0.02
"""Seconds that the first wait lasts at most; each next one may last twice as long."""

BACKOFF_MAX_S: Final = 1.0
"""Seconds that any wait lasts at most."""

FAILURE_MAX: Final = 16 * 1024
"""Bytes of an encoded ``Failure``: its text has at most 2048 characters."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Environment:
    """Time, chance and waiting as ports, so that a test decides them."""

    clock: Clock = field(default_factory=SystemClock)
    chance: Callable[[], float] = random.random
    """A number of [0, 1) for jitter; nothing secret comes of it."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def until(self, deadline_s: float) -> float:
        """The moment, by ``clock.elapsed``, that lies ``deadline_s`` seconds ahead."""
        if not 0 < deadline_s < float("inf"):
            raise ValueError("a deadline is a positive number of seconds")
        return self.clock.elapsed() + deadline_s


def attempt_s(remaining_s: float, at_most_s: float = WIRE_S) -> float:
    """Seconds for one attempt: half of what remains, so that a lost message can be asked again."""
    return min(at_most_s, remaining_s, max(remaining_s / 2, ATTEMPT_MIN_S))


def backoff_s(attempt: int, chance: float) -> float:
    """Seconds to wait after attempt number ``attempt``, counted from 0 ("full jitter")."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16)) * chance


async def ask_once(
    around: Environment,
    transport: Transport,
    subject: str,
    build: Callable[[int], bytes],
    read: Callable[[bytes], tuple[T, float]],
    timeout_s: float,
) -> T:
    """Send ``build(deadline in Unix ms)`` and return what ``read`` makes of the answer, if in time.

    ``read`` also says for how many seconds, from the sending of the request, the answer may be
    accepted: the lease of whoever answered. Raises ``ServiceError``: ``Unreached`` when the
    request reached nobody, ``Discarded`` for an answer that came too late.
    """
    if timeout_s <= 0:
        raise DeadlineExceeded("the deadline passed before the request was sent")
    try:
        body = build(around.clock.unix_ms() + max(1, int(timeout_s * 1000)))
        sent = around.clock.elapsed()
        try:
            raw = await transport.request(subject, body, timeout_s)
        except KcmError as error:
            if error.code is Code.UNAVAILABLE:
                raise Unreached(error.detail) from None
            raise
        answer, lease_s = read(raw)
    except KcmError as error:
        raise typed(error) from None
    took_s = around.clock.elapsed() - sent
    if took_s > timeout_s:
        raise Discarded("the answer came too late and was discarded")
    if took_s >= lease_s:
        raise Discarded(
            "the answer was discarded: the lease of whoever answered had ended when it came"
        )
    return answer


async def pause(
    around: Environment, attempt: int, until: float, attempts_max: float = ATTEMPTS_MAX
) -> bool:
    """Wait before the next attempt; False when there is none, or no time for it."""
    wait = backoff_s(attempt, around.chance())
    if attempt + 1 >= attempts_max or around.clock.elapsed() + wait >= until:
        return False
    await around.sleep(wait)
    return True


def read_reply(model: type[M], body: bytes) -> M:
    """Decode a reply, or raise what a ``Failure`` in its place says.

    An answer that is neither raises ``internal``: it is no fault of the request.
    """
    try:
        value = unpack(body)
        if not (isinstance(value, dict) and "error" in value):
            return decode_unpacked(model, value, body)
        failure = decode_unpacked(Failure, value, body, limit=FAILURE_MAX)
    except KcmError:
        raise Internal("the answer is not one of this protocol") from None
    raise error_for(failure.error, failure.detail)
