"""A node: whatever can be paused, suspended or killed by itself, one incarnation of one process.

A node is a context variable, set in its first task and inherited by every task, timer and callback
that comes of it. So the loop knows whose code it is about to run.
"""

from __future__ import annotations

import contextvars
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.simulation.handles import Callback, SimTask, SimTimer

THREAD_S: Final = 0.001
"""Seconds that the work of a thread takes, at most."""


class Node:
    """One incarnation. ``rate`` is how fast its clocks run, in seconds per true second."""

    __slots__ = (
        "asleep_s",
        "context",
        "dead",
        "name",
        "parked",
        "paused",
        "queued",
        "rate",
        "ready",
        "slept_at",
        "tasks",
        "thread_s",
    )

    def __init__(self, name: str, rate: float = 1.0) -> None:
        self.name = name
        self.rate = rate
        self.ready: deque[Callback] = deque()
        self.queued = False
        """Whether the loop has it among those that may run."""
        self.paused = False
        self.dead = False
        self.thread_s = THREAD_S
        """Seconds that the work of a thread takes here, at most."""
        self.asleep_s = 0.0
        """True seconds spent in suspend, during which its monotonic clock stood."""
        self.slept_at: float | None = None
        self.parked: list[tuple[float, SimTimer]] = []
        """Timers that wait for the end of the suspend."""
        self.tasks: weakref.WeakSet[SimTask[Any]] = weakref.WeakSet()
        self.context = contextvars.Context()
        self.context.run(NODE.set, self)

    def monotonic(self, now: float) -> float:
        """The node's monotonic clock, which stands in suspend; ``now`` is the true time."""
        awake = now if self.slept_at is None else self.slept_at
        return (awake - self.asleep_s) * self.rate

    def true_time(self, when: float) -> float:
        """When the monotonic clock will show ``when``, in true time, if it is not suspended."""
        return when / self.rate + self.asleep_s

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


NODE: contextvars.ContextVar[Node] = contextvars.ContextVar("NODE")
