"""Repetitions of a request without a reply: the same bytes are sent again.

If a Core ends, the requests that it had taken get no reply. A request without a reply is therefore
sent again, byte for byte, and the first reply counts. Requests sent this way must be idempotent.

Two Cores that execute the same request at once may conflict with each other. So while another reply
may still come, ``conflict`` is not final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kcm_schemas.codes import Code

from kcm.errors import ServiceError

AGAIN_S: Final = 1.0
"""Seconds without a reply until the first repetition; each next wait is twice as long. Most replies
come earlier. If a customer's root key is slow, a second Core does the work in vain."""

REPEATS_MAX: Final = 3
"""Repetitions of one request: after 1, 3 and 7 seconds."""

T = TypeVar("T")


async def repeated(ask: Callable[[], Awaitable[T]], again_s: float = AGAIN_S) -> T:
    """Return the first reply to a request that is repeated while no reply comes.

    Raises ``ServiceError``: the first failure, but ``conflict`` only if no other reply may come.
    """
    running = {asyncio.ensure_future(ask())}
    ended: set[asyncio.Future[T]] = set()
    left = REPEATS_MAX
    try:
        while True:
            timeout = again_s if left else None
            done, running = await asyncio.wait(
                running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            ended |= done
            for task in done:
                try:
                    return task.result()
                except ServiceError as error:
                    if error.code is not Code.CONFLICT or not (running and left):
                        raise
            if not done:
                left, again_s = left - 1, again_s * 2
                running = {*running, asyncio.ensure_future(ask())}
    finally:
        for task in running:
            task.cancel()
        # If several ended together, only one error is raised; retrieve those of the others here.
        await asyncio.gather(*running, *ended, return_exceptions=True)
