"""Staggered requests: ask one region after the other until one replies.

A region that is down must not delay a kill. The next region is asked as soon as one fails, or after
``STAGGER_S`` without a reply. The first reply counts and the other requests are cancelled, so a
request made this way must be safe to repeat.

The standard library's ``asyncio.staggered.staggered_race`` is not used. It would hide a programming
error in one region if another region replies, and a cancelled caller would leave requests running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from kcm._internal.client_context import NotLetIn
from kcm.errors import ServiceError, Unavailable, error_for

STAGGER_S: Final = 0.7
"""Seconds until the next region is asked too: several times the reply time of a healthy one."""

T = TypeVar("T")


async def first(
    regions: Sequence[str],
    ask: Callable[[str], Awaitable[T]],
    stagger_s: float = STAGGER_S,
) -> tuple[str, T]:
    """Return the first region that replies, and its reply.

    Raises ``ServiceError`` if no region does: a refusal if there is one, because that is a
    decision, else an error that gives the reason for each region. Any other exception is raised
    at once.
    """
    waiting = list(regions)
    running: dict[asyncio.Task[T], str] = {}
    failures: dict[str, ServiceError] = {}
    try:
        while waiting or running:
            if waiting:
                region = waiting.pop(0)
                running[asyncio.create_task(_call(ask, region))] = region
            done, _ = await asyncio.wait(
                running,
                timeout=stagger_s if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                region = running.pop(task)
                error = task.exception()
                if error is None:
                    return region, task.result()
                if not isinstance(error, ServiceError):
                    raise error
                failures[region] = error
    finally:
        await _drop(list(running))
    raise worst(failures)


def worst(failures: Mapping[str, ServiceError]) -> ServiceError:
    """Return a refusal, or an error with the reason of every region, each text once."""
    errors = list(failures.values())
    error = min(errors, key=lambda one: one.retryable, default=Unavailable("no region to ask"))
    if len(errors) < 2 or not error.retryable:
        return error
    by_text: dict[str, list[str]] = {}
    for region, one in sorted(failures.items()):
        by_text.setdefault(one.detail, []).append(region)
    text = "; ".join(f"{', '.join(regions)}: {detail}" for detail, regions in by_text.items())
    if all(isinstance(one, NotLetIn) for one in errors):
        hints = dict.fromkeys(one.hint for one in errors if isinstance(one, NotLetIn))
        return NotLetIn(text, "; ".join(hints))
    kinds = {type(one) for one in errors}
    return error_for(error.code, text) if len(kinds) > 1 else type(error)(text)


async def _call(ask: Callable[[str], Awaitable[T]], region: str) -> T:
    return await ask(region)


async def _drop(tasks: Sequence[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
