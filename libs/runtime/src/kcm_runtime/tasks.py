"""Background tasks of an object that lives long.

``asyncio.TaskGroup`` is for tasks that end within one function. A ``TaskSet`` is for an object that
starts work in one method and ends it in ``close``. It keeps a reference to each task: the event
loop keeps only weak ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final


class TaskSet:
    """Tasks whose result no other code waits for."""

    def __init__(self) -> None:
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of tasks that have not ended."""
        return len(self._tasks)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background; after ``close`` it is cancelled before it begins.

        The exception handler of the event loop gets an exception of the coroutine as soon as the
        task ends. In a service that is ``kcm_runtime.process.report``, which logs it.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._closed:
            task.cancel()
        return task

    def close(self) -> None:
        """Cancel all tasks, and accept no more. Does not wait for them."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def join(self, timeout_s: float | None = None) -> None:
        """Wait until the present tasks have ended, for at most ``timeout_s`` seconds.

        Raises no error of a task. Cancels none: call ``close`` first for that. A task that calls a
        library which swallows cancellations needs a flag of its own.
        """
        waiting = self._tasks - {asyncio.current_task()}
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            task.get_loop().call_exception_handler(
                {"message": "a background task failed", "exception": error, "task": task}
            )
