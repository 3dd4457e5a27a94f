"""Cancellations that a library loses.

``asyncio.wait_for`` of Python 3.11 returns the result, and drops the cancellation, if both arrive
in the same turn of the event loop. A task that repeats requests would then never end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def cancellable(work: Awaitable[T]) -> T:
    """Return the result of ``work``; raises ``CancelledError`` if the task was cancelled meanwhile.

    An error of ``work`` is not raised then, either. A cancellation from before is not raised again:
    a task may end its work with requests.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        return await work
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
