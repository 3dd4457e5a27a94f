"""Rate limit for events that outside parties can cause at any rate.

The first event of a kind is recorded at once. Those of the next ``EVERY_S`` seconds are counted,
and recorded as one event with their number when that time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 60.0
"""Seconds in which further events of one kind are counted as one."""

Tell = Callable[[int], None]
"""Records an event that represents this many."""


@dataclass(slots=True)
class _Counted:
    tell: Tell
    timer: asyncio.TimerHandle
    more: int = 0


class Paced:
    """At most two events of each kind in a minute."""

    def __init__(self, ended: Callable[[Hashable], None] = lambda _: None) -> None:
        """``ended`` is called for each kind when its time is over."""
        self._ended: Final = ended
        self._counted: dict[Hashable, _Counted] = {}

    def __contains__(self, kind: Hashable) -> bool:
        """Whether further events of a kind are only counted at the moment."""
        return kind in self._counted

    def record(self, kind: Hashable, tell: Tell, count: int = 1) -> None:
        """Record an event that happened ``count`` times; of counted ones, the last ``tell`` counts.

        There must be few kinds: outside parties must not be able to create one.
        """
        counted = self._counted.get(kind)
        if counted is not None:
            counted.tell, counted.more = tell, counted.more + count
            return
        tell(count)
        timer = asyncio.get_running_loop().call_later(EVERY_S, self._end, kind)
        self._counted[kind] = _Counted(tell, timer)

    def close(self) -> None:
        """Record the events that are only counted so far."""
        for kind, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._end(kind)

    def _end(self, kind: Hashable) -> None:
        counted = self._counted.pop(kind)
        self._ended(kind)
        if counted.more:
            counted.tell(counted.more)
