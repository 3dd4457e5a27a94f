"""Repetitions of one request: under the same id, bounded, and the best reply counts."""

import asyncio
import gc

import pytest
from kcm._internal.retry import REPEATS_MAX, repeated
from kcm.errors import (
    Conflict,
    Unavailable,
    error_for,
)
from kcm_schemas.codes import Code, KcmError


class Cores:
    """The first one that is asked answers after a time, if at all; all others fail."""

    def __init__(self, failure: KcmError, first_s: float = 3600) -> None:
        self.failure, self.first_s = failure, first_s
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.asked == 1:
            await asyncio.sleep(self.first_s)
            return "done"
        raise self.failure


async def test_two_cores_in_each_others_way_are_no_conflict() -> None:
    """The first Core is slow; the second one finds that somebody else wrote, and says so first."""
    cores = Cores(Conflict("somebody else changed this"), first_s=0.1)
    assert await repeated(cores, again_s=0.02) == "done"
    assert cores.asked > 1


async def test_a_conflict_is_told_when_nobody_else_says_better() -> None:
    cores = Cores(Conflict("another record has this name"))
    with pytest.raises(Conflict):
        await repeated(cores, again_s=0.01)
    assert cores.asked == 1 + REPEATS_MAX


@pytest.mark.parametrize("code", [Code.FORBIDDEN, Code.UNAVAILABLE, Code.BUSY])
async def test_any_other_failure_ends_the_attempt(code: Code) -> None:
    cores = Cores(error_for(code))
    with pytest.raises(KcmError) as info:
        await repeated(cores, again_s=0.01)
    assert info.value.code is code
    assert cores.asked == 2


async def test_failures_that_come_together_are_told_once_and_to_nobody_else() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    asked, answer = 0, asyncio.Event()

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 3:
            answer.set()
        await answer.wait()
        raise Unavailable("no answer in time")

    with pytest.raises(Unavailable):
        await repeated(ask, again_s=0.001)
    gc.collect()
    await asyncio.sleep(0)
    assert asked >= 3
    assert told == []


async def test_a_flood_of_the_same_question_is_bounded() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.3)
        return "late"

    assert await repeated(ask, again_s=0.001) == "late"
    assert asked == 1 + REPEATS_MAX
