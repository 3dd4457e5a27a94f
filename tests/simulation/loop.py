"""An event loop in virtual time, the same for the same seed.

Time stands while anything can run, and then jumps to the next timer. Callbacks of one node run in
the order in which they were scheduled, as asyncio promises; whose turn it is among the nodes is
drawn at random, as it is among processes. Nothing here knows a socket, a thread or a clock.

A node can be **paused** (what it has to do is kept, time goes on), **suspended** (its monotonic
clock stands too) and **killed** (nothing of it ever runs again, no ``finally`` either).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
import random
import sys
import warnings
from asyncio import _set_running_loop  # exported for those who implement a loop
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from tests.simulation.handles import Callback, SimHandle, SimTask, SimTimer
from tests.simulation.nodes import NODE, Node

T = TypeVar("T")

STEPS_MAX: Final = 3_000_000
"""Callbacks of one run: many times what a run of 150 virtual seconds needs."""

STEPS_AT_ONCE_MAX: Final = 50_000
"""Callbacks without any time going by: more is a loop that waits for nothing."""

_Timer = tuple[float, int, SimTimer, Node]


class Stuck(Exception):
    """Somebody waits, and nothing will ever happen again."""


class Runaway(Exception):
    """More steps than a run can need."""


class SimLoop(asyncio.AbstractEventLoop):
    """One simulated world's time."""

    def __init__(self, seed: int = 0) -> None:
        self.random: Final = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.world: Final = Node("world")
        """Whatever is no process: brokers, networks, the schedule of faults. Never stops."""
        self.faults: list[dict[str, Any]] = []
        """What nobody caught."""
        self.on_step: Callable[[str, asyncio.Handle], None] | None = None
        self._current = self.world
        self._eligible: list[Node] = []
        self._timers: list[_Timer] = []
        self._numbers = 0
        self._graveyard: list[asyncio.Task[Any]] = []
        self._nodes: list[Node] = [self.world]
        self.failure: BaseException | None = None
        """What the run ends with, if something went wrong."""
        self._closed = False
        self._steps_here = 0

    # What asyncio asks for.

    def time(self) -> float:
        return self._current.monotonic(self.now)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop() is self
        return False

    def is_closed(self) -> bool:
        return self._closed

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> SimTask[T]:
        context = contextvars.copy_context() if context is None else context
        self._numbers += 1
        task = SimTask(self._numbers, coro, loop=self, name=name or "task", context=context)
        context.get(NODE, self.world).tasks.add(task)
        return task

    def call_soon(
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        node = self._current if context is None else context.get(NODE, self.world)
        handle = SimHandle(callback, args, self, context)
        self._make_ready(node, handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimTimer:
        node = self._current if context is None else context.get(NODE, self.world)
        return self._call_at(node, node.monotonic(self.now) + delay, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimTimer:
        node = self._current if context is None else context.get(NODE, self.world)
        return self._call_at(node, when, callback, args, context)

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Work of a thread: it is done a little later, in one step."""
        done = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_later(self._current.thread_s * self.random.random(), work)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed:
            self.faults.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    # What the simulation asks for.

    def node(self, name: str, rate: float = 1.0) -> Node:
        """A new node: an incarnation."""
        node = Node(name, rate)
        self._nodes.append(node)
        return node

    def spawn(self, node: Node, coro: Coroutine[Any, Any, T]) -> SimTask[T]:
        """Run a coroutine as part of a node."""
        return self.create_task(coro, context=node.context.copy())

    def at(self, when: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Call at a true time, as part of the world, whoever asks for it."""
        return self._call_at(self.world, when, callback, args, self.world.context)

    def after(self, delay: float, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Call after true seconds, as part of the world."""
        return self.at(self.now + delay, callback, *args)

    def pause(self, node: Node) -> None:
        """Let nothing of a node run; its clocks run on."""
        node.paused = True
        if node.queued:
            node.queued = False
            self._eligible.remove(node)

    def resume(self, node: Node) -> None:
        """Let it go on with everything that waits, in its order."""
        if node.slept_at is not None:
            slept = self.now - node.slept_at
            node.asleep_s += slept
            node.slept_at = None
            for when, handle in node.parked:
                self._push(when + slept, handle, node)
            node.parked = []
        node.paused = False
        self._offer(node)

    def suspend(self, node: Node) -> None:
        """Pause, and stop the monotonic clock with all timers."""
        self.pause(node)
        node.slept_at = self.now
        node.parked = [(when, handle) for when, _, handle, owner in self._timers if owner is node]
        self._timers = [timer for timer in self._timers if timer[3] is not node]
        heapq.heapify(self._timers)

    def kill(self, node: Node) -> None:
        """End a node as a power failure does: no cleanup runs."""
        self.pause(node)
        node.dead = True
        for task in node.tasks:
            task.abandon()
            self._graveyard.append(task)  # where nobody collects it, and runs its ``finally``
        node.tasks.clear()
        node.ready.clear()

    def fail(self, error: BaseException) -> None:
        """End the run with an error, whoever is being run and whatever it would catch."""
        self.failure = self.failure or error

    def run(self, coro: Coroutine[Any, Any, T], until: float = float("inf")) -> T:
        """Run a coroutine of the world to its end, at most until a true time.

        Raises ``Stuck``, ``Runaway``, what ``fail`` was given, or what the coroutine raises.
        """
        _set_running_loop(self)
        try:
            main = self.spawn(self.world, coro)
            main.abandon()  # the run may end before it
            while not main.done():
                if self.failure is not None:
                    raise self.failure
                if not self._eligible and not self._advance(until):
                    raise Stuck(self._describe())
                if self._eligible:
                    self._step()
            if self.failure is not None:
                raise self.failure
            return main.result()
        finally:
            self._current = self.world
            _set_running_loop(None)

    def close(self) -> None:
        """Let go of everything; what was left unfinished says nothing any more."""
        self._closed = True
        for node in self._nodes:
            self.kill(node)
        self._timers.clear()
        hook = sys.unraisablehook
        sys.unraisablehook = lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for task in self._graveyard:
                    # A cleanup that waits raises; nobody waits with it.
                    with contextlib.suppress(Exception):
                        task.get_coro().close()
        finally:
            self._graveyard.clear()
            self._nodes.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
            sys.unraisablehook = hook

    def _call_at(
        self,
        node: Node,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> SimTimer:
        handle = SimTimer(when, callback, args, self, context)
        self._push(node.true_time(when), handle, node)
        return handle

    def _push(self, when: float, handle: SimTimer, node: Node) -> None:
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._numbers, handle, node))

    def _make_ready(self, node: Node, handle: Callback) -> None:
        if node.dead:
            return
        node.ready.append(handle)
        if not node.queued:
            self._offer(node)

    def _offer(self, node: Node) -> None:
        if node.ready and not (node.paused or node.dead or node.queued):
            node.queued = True
            self._eligible.append(node)

    def _advance(self, until: float) -> bool:
        """Jump to the next timer; ``False``: there is none up to ``until``."""
        timers = self._timers
        while timers:
            when, _, handle, node = timers[0]
            if handle.cancelled() or node.dead:
                heapq.heappop(timers)
                continue
            break
        else:
            return False
        if when > until:
            return False
        self.now = max(self.now, when)
        self._steps_here = 0
        while timers and timers[0][0] <= self.now:
            _, _, handle, node = heapq.heappop(timers)
            if not handle.cancelled():
                self._make_ready(node, handle)
        return True

    def _step(self) -> None:
        eligible = self._eligible
        at = int(self.random.random() * len(eligible)) if len(eligible) > 1 else 0
        node = eligible[at]
        handle = node.ready.popleft()
        if not node.ready:
            node.queued = False
            eligible[at] = eligible[-1]
            eligible.pop()
        if handle.cancelled():
            return
        self.steps += 1
        self._steps_here += 1
        if self.steps > STEPS_MAX or self._steps_here > STEPS_AT_ONCE_MAX:
            raise Runaway(f"{self.steps} steps, {self._steps_here} at {self.now:.6f}: {handle}")
        if self.on_step is not None:
            self.on_step(node.name, handle)
        self._current = node
        handle.run()
        self._current = self.world

    def _describe(self) -> str:
        waiting = [
            f"{node.name}{' (paused)' if node.paused else ''}: {task.get_coro().__qualname__}"
            for node in self._nodes
            for task in sorted(node.tasks, key=hash)
            if not (node.dead or task.done())
        ]
        return f"at {self.now:.6f} nothing can run any more; waiting: {'; '.join(waiting)}"
