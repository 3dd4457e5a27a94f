"""Waiting for a condition: after each change, and no poll."""

import asyncio

import pytest
from kcm_runtime.changes import Changes

LONG_S = 30.0


async def test_what_holds_already_is_not_waited_for():
    assert await Changes().until(lambda: True, 0.0)


async def test_a_condition_is_looked_at_after_each_change_and_at_no_other_time():
    changes, looks = Changes(), []

    def third() -> bool:
        looks.append(1)
        return len(looks) == 3

    waiting = asyncio.create_task(changes.until(third, LONG_S))
    for expected in (1, 2):
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(looks) == expected
        changes.notify()
        changes.notify()  # two changes before the loop runs are one look
    assert await waiting


async def test_time_is_up_and_the_condition_is_looked_at_once_more():
    changes, true = Changes(), []
    asyncio.get_running_loop().call_later(0.01, true.append, 1)  # a change that nobody reports
    assert await changes.until(lambda: bool(true), 0.05)
    assert not await changes.until(lambda: False, 0.01)


async def test_what_the_condition_raises_ends_the_wait_and_leaves_no_waiter():
    changes = Changes()

    def broken() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        await changes.until(broken, LONG_S)
    task = asyncio.create_task(changes.until(lambda: False, LONG_S))
    await asyncio.sleep(0)
    assert changes.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert changes.waiting == 0
    changes.notify()
