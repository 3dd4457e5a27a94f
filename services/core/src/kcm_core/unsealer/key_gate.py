"""A limiter for each key: one unseal and one probe at a time, with a circuit breaker.

A thousand tenants of one key that are opened after a restart queue up instead of making a thousand
calls at once: providers throttle, tokens fail. Probes do not wait in that queue, because leases
would end meanwhile. After calls without an answer, the circuit breaker is open for a pause: callers
fail at once, and the first call after the pause tests the key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import scheme

PAUSES_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds of the pause after a number of calls without an answer; the last one for all further
calls. They are shorter than a probe interval, so that the next probe finds a recovered L1."""

LINE_S: Final = 60.0
"""The most seconds that a call waits for its turn."""

TOLD_EVERY_S: Final = 5.0
"""The least seconds between two log lines about a long queue."""

LONG: Final = 10
"""Calls in a queue that is logged."""

LINES_MAX: Final = 1024
"""L1s that are remembered; above that, one without waiting calls is forgotten."""

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Line:
    unseal: asyncio.Lock = field(default_factory=asyncio.Lock)
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    done: int = 0
    told: float = 0.0
    silent: int = 0
    """Consecutive calls without an answer."""
    asked_again: float = 0.0
    """Until when calls fail at once."""


class Turns:
    """Grants calls their turns, by URI. ``now`` returns seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now: Final = now
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def take(self, uri: str, *, probe: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and bracket one call with it.

        Raises ``L1Error`` (unreachable) without a call during a pause, or when no turn comes in
        time. Learns from the ``L1Error`` of the call, or from its success.
        """
        line = self._line(uri)
        lock = line.probe if probe else line.unseal
        line.waiting += 1
        try:
            try:
                await asyncio.wait_for(lock.acquire(), LINE_S)
            except TimeoutError:
                raise L1Error(
                    L1State.UNREACHABLE, f"no turn within {LINE_S:g} s: many calls wait for the key"
                ) from None
            try:
                self._tell(uri, line)
                if self._now() < line.asked_again:
                    raise L1Error(L1State.UNREACHABLE, "the key did not answer a moment ago")
                async with self._learning(line):
                    yield
            finally:
                lock.release()
        finally:
            line.waiting -= 1
            if not line.waiting:
                line.done = 0

    def silent(self, uri: str) -> bool:
        """Whether the last call to a key had no answer."""
        line = self._lines.get(uri)
        return line is not None and bool(line.silent)

    @asynccontextmanager
    async def _learning(self, line: _Line) -> AsyncIterator[None]:
        try:
            yield
        except L1Error as error:
            if error.state is not L1State.UNREACHABLE:
                line.silent = 0
            elif error.cls:  # without a class the error is local, and no call was made
                line.silent = min(line.silent + 1, len(PAUSES_S))
                line.asked_again = self._now() + PAUSES_S[line.silent - 1]
            raise
        line.silent = 0
        line.done += 1

    def _tell(self, uri: str, line: _Line) -> None:
        now = self._now()
        if line.waiting >= LONG and now - line.told >= TOLD_EVERY_S:
            line.told = now
            _log.info(
                "tenant roots of one %s key: %d opened, %d calls wait",
                scheme(uri),
                line.done,
                line.waiting,
            )

    def _line(self, uri: str) -> _Line:
        line = self._lines.pop(uri, None) or _Line()
        self._lines[uri] = line  # the most recently used is last
        if len(self._lines) > LINES_MAX:
            idle = next((name for name, one in self._lines.items() if not one.waiting), None)
            if idle is not None:
                del self._lines[idle]
        return line
