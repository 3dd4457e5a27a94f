"""Kills and lifts in every order, by one operator and by several."""

import asyncio

import pytest
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import until
from tests.unit.switch.gateway_incarnation import pair
from tests.unit.switch.rig import watched
from tests.unit.switch.statements import LINK, held, hold, lifted, tenant

# Kill and lift, in every order


async def test_generations_differ_after_kill_lift_and_kill(system):
    """Equality, not order: whatever began in one of them has no output in another."""
    _, gateway = await pair(system)
    first, second = hold(), hold()
    admission, clock = gateway.admission, gateway.clock
    permits = [admission.admit("acme", clock.elapsed())]
    for step in (held(first), lifted(first), held(second), lifted(second)):
        gateway.switch.learn(step)
        for permit in permits:
            with pytest.raises(KcmError) as caught:
                admission.recheck(permit, clock.elapsed())
            killed = gateway.revocations.killed("acme")
            assert caught.value.code is (Code.TENANT_KILLED if killed else Code.TENANT_UNAVAILABLE)
        if not gateway.revocations.killed("acme"):
            permits.append(admission.admit("acme", clock.elapsed()))
            admission.recheck(permits.pop(), clock.elapsed())
    assert gateway.purged.count("acme") == 2


async def test_a_lift_that_races_another_kill_lifts_only_its_own(system):
    cores = [system.core(f"core-eu-{n}") for n in (1, 2)]
    await asyncio.gather(*(core.start(regions=False, watch=False) for core in cores))
    first, second = hold(), hold()
    for core in cores:
        core.switch.learn(held(first))
    await asyncio.gather(
        cores[0].switch.broadcast(cores[0].switch.verify(lifted(first))),
        cores[1].switch.broadcast(cores[1].switch.verify(held(second))),
    )
    await until(lambda: all(len(core.revocations.holds) == 2 for core in cores))
    await until(lambda: all(core.switch.all_durable for core in cores))
    assert all(core.revocations.killed("acme") for core in cores)
    for core in cores:
        core.switch.learn(lifted(second))
        assert not core.revocations.killed("acme")


async def test_a_lift_that_arrives_before_its_hold_leaves_nothing_killed(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    one = hold()
    for raw in (lifted(one), held(one), held(one)):
        incarnation.switch.learn(raw)
    assert not incarnation.revocations.killed("acme")
    assert incarnation.purged == []


async def test_two_operators_at_once_need_two_lifts(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    await watched(system)
    core.learn(LINK, tenant())
    one, two = hold(), hold()
    deadline = core.clock.unix_ms() + 20_000
    statuses = await asyncio.gather(
        core.kills.place(held(one), deadline),
        core.kills.place(held(two, "security-2"), deadline),
    )
    assert all(status.complete for status in statuses)
    status = await core.kills.place(lifted(one), deadline)
    assert status.lifted
    assert core.revocations.killed("acme")
    await core.kills.place(lifted(two, "security-2"), deadline)
    assert not core.revocations.killed("acme")


async def test_the_same_kill_sent_twice_at_once_is_one_kill(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    await watched(system)
    core.learn(LINK, tenant())
    raw = held(hold())
    deadline = core.clock.unix_ms() + 20_000
    both = await asyncio.gather(*(core.kills.place(raw, deadline) for _ in range(2)))
    assert all(status.complete for status in both)
    assert core.purged.count("acme") == 1
