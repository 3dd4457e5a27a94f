"""Time that runs only when nobody has anything to do: an event loop and clocks for tests.

A test that lets an hour pass takes as long as what happens in it, and what happens does not depend
on how busy the machine is. Work that would go to another thread is done at once, so that time does
not run on without it.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

STEP_S = 0.01
"""Seconds between two looks at a condition."""


class _Selector(selectors.DefaultSelector):
    """Never waits: what the loop would have waited for is over at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)
        return future


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run one test in a virtual loop, where the tests beside it run in a real one."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **fixtures))

    return run


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes virtual loops."""

    def new_event_loop(self) -> VirtualLoop:
        return VirtualLoop()


class VirtualClock:
    """A machine's clocks: they began at ``began`` and run at ``rate`` seconds a second."""

    def __init__(self, began: float = 1_000.0, rate: float = 1.0) -> None:
        self.began = began
        self.rate = rate
        self.slept = 0.0

    def elapsed(self) -> float:
        return self.began + asyncio.get_running_loop().time() * self.rate + self.slept

    def unix_ms(self) -> int:
        return int(1_000_000 + asyncio.get_running_loop().time() * 1000)

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Let time pass until something is so; fails when it is not within so many virtual seconds."""
    end = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not come to pass"
        await asyncio.sleep(STEP_S)


async def let_pass(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


async def settled() -> None:
    """Let everything happen that happens without time passing."""
    for _ in range(200):
        await asyncio.sleep(0)
