"""Events that somebody outside can cause as often as they like, on record without filling it.

The first one is recorded at once. Those of ``EVERY_S`` after it are counted, and recorded as one
with their number when that time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 60.0
"""Seconds whose events of one kind are one."""

Tell = Callable[[int], None]
"""Records an event, with how many it stands for."""


@dataclass(slots=True)
class _Counted:
    tell: Tell
    timer: asyncio.TimerHandle
    more: int = 0


class Paced:
    """At most two events a minute of each kind."""

    def __init__(self, ended: Callable[[Hashable], None] = lambda _: None) -> None:
        """``ended`` hears of each kind whose time is over."""
        self._ended: Final = ended
        self._counted: dict[Hashable, _Counted] = {}

    def __contains__(self, kind: Hashable) -> bool:
        """Whether further ones of a kind are counted at the moment."""
        return kind in self._counted

    def record(self, kind: Hashable, tell: Tell, count: int = 1) -> None:
        """It happened ``count`` times; of those that are counted the last ``tell`` is called.

        There must be few kinds: nothing from outside may make one.
        """
        counted = self._counted.get(kind)
        if counted is not None:
            counted.tell, counted.more = tell, counted.more + count
            return
        tell(count)
        timer = asyncio.get_running_loop().call_later(EVERY_S, self._end, kind)
        self._counted[kind] = _Counted(tell, timer)

    def close(self) -> None:
        """Record what was counted."""
        for kind, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._end(kind)

    def _end(self, kind: Hashable) -> None:
        counted = self._counted.pop(kind)
        self._ended(kind)
        if counted.more:
            counted.tell(counted.more)
