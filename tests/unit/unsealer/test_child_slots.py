"""How keys share the children of the unsealer's server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.child_slots import SILENT_MAX, WAITING_MAX, ChildSlots
from kcm_core.unsealer.client import CALLS_IN_FLIGHT_MAX
from kcm_core.unsealer.key_gate import Turns


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Calls:
    """Calls that hang until a test ends them."""

    def __init__(self) -> None:
        self.slots = ChildSlots(CALLS_IN_FLIGHT_MAX)
        self.running: list[str] = []
        self.end: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *uris: str, silent: bool = False) -> None:
        for uri in uris:
            self.end[uri] = asyncio.Event()
            self.tasks[uri] = asyncio.create_task(self._call(uri, silent=silent))
        await settle()

    async def _call(self, uri: str, *, silent: bool) -> None:
        async with self.slots.take(uri, silent=silent):
            self.running.append(uri)
            await self.end[uri].wait()


async def test_two_dozen_keys_that_do_not_answer_leave_most_children_to_the_others():
    calls = Calls()
    await calls.begin(*(f"hangs{number}" for number in range(24)), silent=True)
    assert len(calls.running) == SILENT_MAX
    well = [f"well{number}" for number in range(CALLS_IN_FLIGHT_MAX - SILENT_MAX)]
    await calls.begin(*well)
    assert set(well) <= set(calls.running)
    calls.end["hangs0"].set()
    await settle()
    assert calls.running[-1] == "hangs4"
    for task in calls.tasks.values():
        task.cancel()


async def test_keys_take_turns_whatever_each_of_them_asks():
    calls = Calls()
    await calls.begin(*(f"first{number}" for number in range(CALLS_IN_FLIGHT_MAX)))
    order: list[str] = []

    async def call(uri: str) -> None:
        async with calls.slots.take(uri, silent=False):
            order.append(uri)

    many = [asyncio.create_task(call("many")) for _ in range(20)]
    await settle()
    one = asyncio.create_task(call("one"))
    await settle()
    calls.end["first0"].set()
    await asyncio.gather(*many, one)
    assert order.index("one") <= 2
    for task in calls.tasks.values():
        task.cancel()


async def test_a_call_that_gave_up_frees_its_child_whether_it_had_one_or_not():
    calls = Calls()
    uris = [f"key{number}" for number in range(CALLS_IN_FLIGHT_MAX + 3)]
    await calls.begin(*uris)
    assert calls.slots.waiting == 3
    for uri in (uris[-1], uris[0], uris[1]):
        calls.tasks[uri].cancel()
    await settle()
    assert calls.slots.waiting == 0
    assert calls.running[-2:] == uris[-3:-1]
    for task in calls.tasks.values():
        task.cancel()
    await settle()
    await calls.begin(*(f"again{number}" for number in range(CALLS_IN_FLIGHT_MAX)))
    assert calls.slots.waiting == 0
    for task in calls.tasks.values():
        task.cancel()


async def test_what_waits_is_bounded():
    calls = Calls()
    await calls.begin(*map(str, range(WAITING_MAX // 2)), silent=True)
    async with AsyncExitStack() as stack:
        with pytest.raises(L1Error) as info:
            await stack.enter_async_context(calls.slots.take("one more", silent=True))
        assert info.value.state is L1State.UNREACHABLE
        await stack.enter_async_context(calls.slots.take("another", silent=False))
    for task in calls.tasks.values():
        task.cancel()


async def test_a_key_is_silent_from_a_call_without_an_answer_to_the_next_answer():
    now = 0.0
    turns = Turns(lambda: now)
    assert not turns.silent("key")
    with pytest.raises(L1Error):
        async with turns.take("key"):
            raise L1Error(L1State.UNREACHABLE, "no answer", cls="TimeoutError")
    assert turns.silent("key")
    now = 100.0
    async with turns.take("key"):
        assert turns.silent("key")
    assert not turns.silent("key")
