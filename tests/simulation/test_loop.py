"""The loop does what asyncio promises, in virtual time, and the same for the same seed."""

import asyncio
import gc
import hashlib
import itertools

import pytest

from tests.simulation.loop import Runaway, SimLoop, Stuck
from tests.simulation.other_process import output


@pytest.fixture
def loop():
    made = SimLoop(1)
    yield made
    made.close()
    assert made.faults == []


def test_time_jumps_and_nothing_waits(loop):
    async def main():
        await asyncio.sleep(86_400)
        return loop.time()

    assert loop.run(main()) == 86_400


def test_what_asyncio_offers_works(loop):
    async def late(value, after):
        await asyncio.sleep(after)
        return value

    async def main():
        assert await asyncio.gather(late(1, 3), late(2, 1)) == [1, 2]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late(1, 10), 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        event, limit = asyncio.Event(), asyncio.Semaphore(2)

        async def limited():
            async with limit:
                await asyncio.sleep(1)
            event.set()

        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(limited())
        await event.wait()
        assert loop.time() - began == 2
        done, pending = await asyncio.wait({asyncio.ensure_future(late(1, 1))}, timeout=0.5)
        assert not done
        await asyncio.shield(pending.pop())
        lock = asyncio.Lock()
        async with lock:
            assert lock.locked()
        return loop.time()

    assert loop.run(main()) == 8


def test_callbacks_of_one_node_keep_their_order_and_nodes_are_mixed(loop):
    heard = []

    async def talk(name):
        for number in range(20):
            heard.append((name, number))
            await asyncio.sleep(0)

    async def main():
        for name in "abc":
            loop.spawn(loop.node(name), talk(name))
        await asyncio.sleep(1)

    loop.run(main())
    for name in "abc":
        assert [number for who, number in heard if who == name] == list(range(20))
    assert heard != sorted(heard)


def test_a_paused_node_goes_on_where_it_was_and_its_timers_are_late(loop):
    heard = []

    async def tick():
        while True:
            await asyncio.sleep(1)
            heard.append(loop.now)

    async def main():
        node = loop.node("a")
        loop.spawn(node, tick())
        await asyncio.sleep(2.5)
        loop.pause(node)
        await asyncio.sleep(10)
        assert heard == [1, 2]
        loop.resume(node)
        await asyncio.sleep(1.2)

    loop.run(main())
    assert heard == [1, 2, 12.5, 13.5]


def test_a_suspended_node_has_its_timers_moved(loop):
    heard = []

    async def nap():
        await asyncio.sleep(5)
        heard.append((loop.now, loop.time()))

    async def main():
        node = loop.node("a")
        loop.spawn(node, nap())
        await asyncio.sleep(1)
        loop.suspend(node)
        await asyncio.sleep(20)
        loop.resume(node)
        await asyncio.sleep(20)

    loop.run(main())
    assert heard == [(25, 5)]


def test_a_killed_node_runs_no_cleanup(loop):
    heard = []

    async def work():
        try:
            await asyncio.sleep(5)
        finally:
            heard.append("cleanup")

    async def main():
        node = loop.node("a")
        loop.spawn(node, work())
        await asyncio.sleep(1)
        loop.kill(node)
        gc.collect()
        await asyncio.sleep(10)

    loop.run(main())
    assert heard == []
    assert loop.now == 11


def test_somebody_elses_future_wakes_no_dead_node(loop):
    heard = []

    async def main():
        node, future = loop.node("a"), loop.create_future()

        async def wait():
            heard.append(await future)

        loop.spawn(node, wait())
        await asyncio.sleep(1)
        loop.kill(node)
        future.set_result(1)
        await asyncio.sleep(1)

    loop.run(main())
    assert heard == []


def test_clock_rates_differ(loop):
    heard = {}

    async def nap(name):
        await asyncio.sleep(100)
        heard[name] = round(loop.now, 6)

    async def main():
        loop.spawn(loop.node("fast", 1.25), nap("fast"))
        loop.spawn(loop.node("slow", 0.8), nap("slow"))
        await asyncio.sleep(200)

    loop.run(main())
    assert heard == {"fast": 80, "slow": 125}


def test_a_stuck_run_is_reported(loop):
    async def wait_for_ever():
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="wait_for_ever"):
        loop.run(wait_for_ever())


def test_a_runaway_is_reported(loop):
    async def spin():
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(Runaway):
        loop.run(spin())


def test_a_failure_ends_the_run_whoever_catches(loop):
    async def main():
        try:
            loop.fail(ValueError("the oracle"))
            await asyncio.sleep(1)
        except ValueError:
            pass
        await asyncio.sleep(100)

    with pytest.raises(ValueError, match="the oracle"):
        loop.run(main())
    assert loop.now < 2


SCENARIO = """
import asyncio, hashlib, sys
from tests.simulation.loop import SimLoop

def trace(seed):
    loop = SimLoop(seed)
    digest = hashlib.sha256()
    loop.on_step = lambda name, handle: digest.update(f"{loop.now} {name}".encode())
    async def worker(name):
        done = {asyncio.ensure_future(asyncio.sleep(loop.random.random(), i)) for i in range(9)}
        finished, rest = await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            digest.update(str(hash(task)).encode())
            task.cancel()
        digest.update(f"{name} {[t.result() for t in finished]}".encode())
    async def main():
        for name in {"eu", "us", "ap", "sa"}:
            pass
        for name in ("eu", "us", "ap"):
            loop.spawn(loop.node(name), worker(name))
        await asyncio.sleep(3)
    loop.run(main())
    loop.close()
    return digest.hexdigest()

print(trace(int(sys.argv[1])))
"""


def test_the_same_seed_has_the_same_trace_in_another_process():
    assert output(SCENARIO, 1, "1") == output(SCENARIO, 1, "2")
    assert output(SCENARIO, 1, "1") != output(SCENARIO, 2, "1")
    assert len(output(SCENARIO, 1, "3")) == len(hashlib.sha256().hexdigest())
