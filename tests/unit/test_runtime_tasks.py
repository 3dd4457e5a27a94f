"""Background tasks: kept until they end, ended by ``close``, and no exception is lost."""

import asyncio
import gc
from typing import Any

import pytest
from kcm_runtime.tasks import TaskSet


@pytest.fixture
async def reported() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_task_runs_and_leaves_the_set(reported: list[dict[str, Any]]) -> None:
    tasks, begun = TaskSet(), asyncio.Event()

    async def work() -> None:
        begun.set()

    await tasks.spawn(work())
    assert begun.is_set()
    await asyncio.sleep(0)
    assert len(tasks) == 0
    assert reported == []


async def test_a_task_that_nothing_else_references_survives_a_garbage_collection() -> None:
    tasks, done = TaskSet(), asyncio.Event()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    async def finish() -> None:
        await asyncio.sleep(0)
        done.set()

    tasks.spawn(work())
    tasks.spawn(finish())
    gc.collect()
    await asyncio.wait_for(done.wait(), 5)
    assert len(tasks) == 1
    tasks.close()
    await tasks.join()


async def test_close_cancels_and_join_waits_for_the_end(
    reported: list[dict[str, Any]],
) -> None:
    tasks, cleaned = TaskSet(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    tasks.spawn(work())
    await asyncio.sleep(0)
    tasks.close()
    assert tasks.closed
    assert not cleaned.is_set()
    await tasks.join()
    assert cleaned.is_set()
    assert len(tasks) == 0
    assert reported == []


async def test_join_gives_up_after_its_timeout() -> None:
    tasks, end = TaskSet(), asyncio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.spawn(stubborn())
    await asyncio.sleep(0)
    tasks.close()
    await tasks.join(0.01)
    assert len(tasks) == 1
    end.set()
    await task


async def test_a_task_may_close_its_own_set() -> None:
    tasks = TaskSet()

    async def work() -> None:
        tasks.close()
        await tasks.join()

    task = tasks.spawn(work())
    await asyncio.wait({task}, timeout=5)
    assert task.done()


async def test_work_after_close_does_not_begin(reported: list[dict[str, Any]]) -> None:
    tasks, begun = TaskSet(), asyncio.Event()
    tasks.close()

    async def work() -> None:
        begun.set()

    task = tasks.spawn(work())
    await tasks.join()
    assert task.cancelled()
    assert not begun.is_set()
    assert reported == []


async def test_an_exception_reaches_the_loops_handler_when_the_task_ends(
    reported: list[dict[str, Any]],
) -> None:
    tasks, error = TaskSet(), ValueError("a fault")

    async def work() -> None:
        raise error

    task = tasks.spawn(work())
    await tasks.join()
    await asyncio.sleep(0)
    assert [context["exception"] for context in reported] == [error]
    del task
    gc.collect()
    assert len(reported) == 1
