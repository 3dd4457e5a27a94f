"""Staggered requests: the same question to several regions, until one replies."""

import asyncio

import pytest
from kcm._internal.staggered import first
from kcm.errors import Forbidden, Unavailable


async def test_a_slow_region_is_overtaken() -> None:
    gate = asyncio.Event()

    async def ask(region: str) -> str:
        if region == "slow":
            try:
                await gate.wait()
            except asyncio.CancelledError:
                gate.set()
                raise
        return region

    assert await first(["slow", "fast"], ask, stagger_s=0.01) == ("fast", "fast")
    assert gate.is_set()


async def test_a_region_is_asked_as_soon_as_the_one_before_fails() -> None:
    async def ask(region: str) -> str:
        if region == "down":
            raise Unavailable
        return region

    async with asyncio.timeout(5):
        assert await first(["down", "up"], ask, stagger_s=3600) == ("up", "up")


async def test_a_decision_outweighs_a_failure_to_ask() -> None:
    async def ask(region: str) -> str:
        raise Forbidden if region == "us" else Unavailable

    with pytest.raises(Forbidden):
        await first(["eu", "us", "ap"], ask)
    with pytest.raises(Unavailable, match="no region"):
        await first([], ask)


async def test_a_programming_error_is_raised_and_not_hidden_by_another_region() -> None:
    async def ask(region: str) -> str:
        if region == "eu":
            raise ZeroDivisionError
        return region

    with pytest.raises(ZeroDivisionError):
        await first(["eu", "us"], ask)


async def test_a_cancelled_caller_leaves_no_request_running() -> None:
    ended: list[str] = []
    asked = asyncio.Event()

    async def ask(region: str) -> str:
        try:
            if region == "us":
                asked.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append(region)
        return region

    caller = asyncio.create_task(first(["eu", "us"], ask, stagger_s=0.001))
    await asked.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert sorted(ended) == ["eu", "us"]
