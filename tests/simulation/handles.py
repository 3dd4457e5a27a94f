"""What the loop of the simulation runs: tasks and callbacks, as a loop outside of asyncio can."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SimTask(asyncio.Task[T]):
    """A task that hashes by its number, so that a set of tasks has the same order in every run."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, T], **kwargs: Any) -> None:
        self.number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self.number

    def abandon(self) -> None:
        """Report nothing if it never ends: its node was killed, or the run is over."""
        self._log_destroy_pending = False


class SimHandle(asyncio.Handle):
    """A callback as soon as its node runs."""

    __slots__ = ()

    def run(self) -> None:
        """Call it, in its context; the loop gets its error."""
        self._run()


class SimTimer(asyncio.TimerHandle):
    """A callback at a time of its node's clock."""

    __slots__ = ()

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self._scheduled = True

    def run(self) -> None:
        """Call it, in its context; the loop gets its error."""
        self._run()


Callback = SimHandle | SimTimer
