"""The same question once more, while nobody knows whether it is still being answered.

A Core that dies takes the requests with it that it had taken, and nobody says so. So a request that
was not answered for a while is sent again, byte for byte, and whoever answers first is heard. All
that is asked this way is harmless when it is done twice.

Two Cores that do the same at once may find each other in the way. So while another answer may still
come, ``conflict`` is not the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kcm_schemas.codes import Code

from kcm.errors import ServiceError

AGAIN_S: Final = 1.0
"""Seconds without an answer after which a request is sent again; each next wait is twice as long.
Most are answered in less; where a customer's key is slow, a second Core works in vain."""

REPEATS_MAX: Final = 3
"""Times that one request is sent again: after 1, 3 and 7 seconds."""

T = TypeVar("T")


async def repeated(ask: Callable[[], Awaitable[T]], again_s: float = AGAIN_S) -> T:
    """The first answer to a question that is asked again while none comes.

    Raises ``ServiceError``: the first failure, but ``conflict`` only once nothing better may come.
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
        # Of several that ended together only one is told; the others' failures are heard here.
        await asyncio.gather(*running, *ended, return_exceptions=True)
