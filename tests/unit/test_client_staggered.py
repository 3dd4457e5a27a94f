"""Staggered requests: the same question to several regions, until one replies."""

import asyncio

import pytest
from kcm._internal.staggered import first
from kcm.errors import (
    Forbidden,
    Unavailable,
)


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


async def test_a_decision_outweighs_a_failure_to_ask() -> None:
    async def ask(region: str) -> str:
        raise Forbidden if region == "us" else Unavailable

    with pytest.raises(Forbidden):
        await first(["eu", "us", "ap"], ask)
    with pytest.raises(Unavailable, match="no region"):
        await first([], ask)
