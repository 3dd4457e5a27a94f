"""One unseal at a time for each L1, one probe beside it, and a pause after one that is silent.

A thousand tenants on one key that are opened after a restart make a line, not a thousand calls:
providers throttle, tokens break. Probes do not stand in that line, or leases would end behind it.
An L1 that does not answer is not asked again by everybody who waits: who comes during the pause is
told so at once, and the first one after it finds out.
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
"""Seconds of the pause after so many calls without an answer, the last one for all further ones:
less than a probe interval, so that an L1 that comes back is noticed by the next probe."""

LINE_S: Final = 60.0
"""Seconds for which a call waits for its turn."""

TOLD_EVERY_S: Final = 5.0
"""Seconds between two lines in the log about a line that is long."""

LONG: Final = 10
"""Calls in a line that is worth telling."""

LINES_MAX: Final = 1024
"""L1s remembered; beyond that, one that nobody waits for is forgotten."""

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Line:
    unseal: asyncio.Lock = field(default_factory=asyncio.Lock)
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    done: int = 0
    told: float = 0.0
    silent: int = 0
    """Calls in a row without an answer."""
    asked_again: float = 0.0
    """Until when nobody asks."""


class Turns:
    """Gives calls their turns, by URI. ``now`` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now: Final = now
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def take(self, uri: str, *, probe: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and surround one call with it.

        Raises ``L1Error`` (unreachable) without a call during a pause, or when the turn does not
        come. Learns from the ``L1Error`` that the call raises, or from its success.
        """
        line = self._line(uri)
        lock = line.probe if probe else line.unseal
        line.waiting += 1
        try:
            try:
                await asyncio.wait_for(lock.acquire(), LINE_S)
            except TimeoutError:
                raise L1Error(L1State.UNREACHABLE, "many wait for this key") from None
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

    @asynccontextmanager
    async def _learning(self, line: _Line) -> AsyncIterator[None]:
        try:
            yield
        except L1Error as error:
            if error.state is not L1State.UNREACHABLE:
                line.silent = 0
            elif error.cls:  # with no class it is our own word, and nobody was asked
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
                "roots of one %s key: %d opened, %d wait", scheme(uri), line.done, line.waiting
            )

    def _line(self, uri: str) -> _Line:
        line = self._lines.pop(uri, None) or _Line()
        self._lines[uri] = line  # the last used comes last
        if len(self._lines) > LINES_MAX:
            idle = next((name for name, one in self._lines.items() if not one.waiting), None)
            if idle is not None:
                del self._lines[idle]
        return line
