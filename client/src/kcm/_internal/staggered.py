"""The same question to several regions, one after the other until one answers.

A region that is down must not delay a kill: the next one is asked as soon as one has failed, or has
not answered within ``STAGGER_S``. The first answer counts and the rest is dropped, so whatever is
asked this way has to be harmless when it is done more than once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from kcm.errors import ServiceError, Unavailable, error_for

STAGGER_S: Final = 0.7
"""Seconds until the next region is asked too: a few times what a healthy one takes."""

T = TypeVar("T")


async def first(
    regions: Sequence[str],
    ask: Callable[[str], Awaitable[T]],
    stagger_s: float = STAGGER_S,
) -> tuple[str, T]:
    """The first region that answers, and its answer.

    Raises ``ServiceError`` when none does: a refusal if there was one, for that was a decision;
    else it says of each region why.
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
    raise _worst(failures)


def _worst(failures: Mapping[str, ServiceError]) -> ServiceError:
    """A refusal, or what kept every region from answering: each text once, with its regions."""
    errors = list(failures.values())
    error = min(errors, key=lambda one: one.retryable, default=Unavailable("no region to ask"))
    if len(errors) < 2 or not error.retryable:
        return error
    by_text: dict[str, list[str]] = {}
    for region, one in sorted(failures.items()):
        by_text.setdefault(one.detail, []).append(region)
    text = "; ".join(f"{', '.join(regions)}: {detail}" for detail, regions in by_text.items())
    kinds = {type(one) for one in errors}
    return error_for(error.code, text) if len(kinds) > 1 else type(error)(text)


async def _call(ask: Callable[[str], Awaitable[T]], region: str) -> T:
    return await ask(region)


async def _drop(tasks: Sequence[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
