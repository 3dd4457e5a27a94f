"""The hold that a refusing key caused is lifted once the key has settled."""

import asyncio

from kcm_schemas.l1 import L1State

from tests.fakes.unsealer import FakeKey, FakeUnsealer
from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.key_rig import l1_holds, started, until_served
from tests.unit.switch.statements import LINK, URI, held, hold, lifted, tenant


async def test_a_hold_is_lifted_once_the_key_has_settled_and_everything_opens(system):
    cores = await started(system, "core-eu-1", "core-eu-2")
    key = system.unsealers["eu"].key(URI)
    key.state = L1State.DISABLED
    await until(lambda: all(core.revocations.killed("acme") for core in cores), 12)
    await let_pass(100)
    assert all(core.revocations.killed("acme") for core in cores)
    key.state = L1State.ENABLED
    enabled = cores[0].clock.elapsed()
    await until(lambda: not any(core.revocations.killed("acme") for core in cores), 120)
    assert cores[0].clock.elapsed() - enabled >= system.timing.settle_s
    for core in cores:
        await until_served(core, 5)


async def test_an_incarnation_that_never_saw_the_tenant_open_lifts_what_its_region_placed(system):
    """The Core that placed the hold is gone: another one reads the canary from the store."""
    (first,) = await started(system, "core-eu-1")
    key = system.unsealers["eu"].key(URI)
    key.state = L1State.DISABLED
    await until(lambda: l1_holds(first) and first.switch.all_durable, 12)
    await first.crash()
    key.state = L1State.ENABLED
    second = system.core("core-eu-2")
    second.learn(LINK, tenant())
    await second.start(regions=False)
    assert second.revocations.killed("acme")
    await until(lambda: not second.revocations.killed("acme"), 120)
    await until_served(second, 5)


async def test_nobody_lifts_an_operators_hold_or_one_of_another_region(system):
    (core,) = await started(system, "core-eu-1")
    by_operator = hold(scope="link", target="acme-root")
    by_us = hold(scope="link", target="acme-root", cause="l1", origin="us")
    core.switch.learn(held(by_operator))
    core.switch.learn(held(by_us, "core-us-1"))
    await let_pass(300)
    assert core.revocations.killed("acme")
    assert not any(record.lifted for record in core.revocations.holds)


async def test_an_operators_hold_outlasts_the_lift_of_the_keys_own(system):
    (core,) = await started(system, "core-eu-1")
    by_operator = hold()
    key = system.unsealers["eu"].key(URI)
    key.state = L1State.DISABLED
    await until(lambda: l1_holds(core), 12)
    core.switch.learn(held(by_operator))
    key.state = L1State.ENABLED
    await until(lambda: l1_holds(core)[0].lifted, 120)
    assert core.revocations.killed("acme")
    core.switch.learn(lifted(by_operator))
    await until_served(core, 5)


async def test_a_use_in_flight_when_the_key_was_disabled_lifts_nothing(system):
    """Its answer comes late, and says enabled, for it was when it was asked."""
    cores = await started(system, "core-eu-1", "core-eu-2")
    gate, inside = asyncio.Event(), asyncio.Event()

    async def slow(operation, uri):
        if operation == "probe" and not gate.is_set():
            inside.set()
            await gate.wait()

    cores[0].unsealer.hook = slow
    await asyncio.wait_for(inside.wait(), 30)
    root = (await cores[1].store.root("acme")).versions[0]
    cores[1].watch.answered(cores[1].watch.ask("acme", root), L1State.DISABLED)
    await until(lambda: cores[0].revocations.killed("acme"))
    gate.set()
    await settled()
    for core in cores:
        assert not core.holds.damping.ripe("acme-root")
        assert not core.holds.damping.counting("acme-root")


async def test_a_key_that_flaps_stays_dark_until_it_settles(system):
    (core,) = await started(system, "core-eu-1")
    key = system.unsealers["eu"].key(URI)
    key.state = L1State.DISABLED
    await until(lambda: l1_holds(core), 12)
    for _ in range(6):
        key.state = L1State.ENABLED
        await let_pass(system.timing.settle_s * 0.6)
        key.state = L1State.DISABLED
        await let_pass(system.timing.probe_interval_s * 1.5)
        assert core.revocations.killed("acme")
    assert len(l1_holds(core)) == 1
    key.state = L1State.ENABLED
    await until(lambda: not core.revocations.killed("acme"), 120)


async def test_a_key_that_flapped_stays_dark_for_longer_also_after_a_restart(system):
    (core,) = await started(system, "core-eu-1")
    settle_ms = int(system.timing.settle_s * 1000)
    now = core.clock.unix_ms()
    for ago in (5, 9):
        earlier = hold(
            cause="l1", scope="link", target="acme-root", issued_ms=now - ago * settle_ms
        )
        core.switch.learn(lifted(earlier, "core-eu-1"))
    await until(lambda: core.switch.all_durable)
    await core.crash()
    (core,) = await started(system, "core-eu-2")
    key = system.unsealers["eu"].key(URI)
    key.state = L1State.DISABLED
    await until(lambda: core.revocations.killed("acme"), 12)
    key.state = L1State.ENABLED
    await let_pass(system.timing.settle_s * 3.5)
    assert core.revocations.killed("acme")
    await until(lambda: not core.revocations.killed("acme"), system.timing.settle_s * 2)


async def test_two_endpoints_that_disagree_stay_dark_until_both_agree(system):
    """The Cores of a region ask different endpoints of one key; one of them says no."""
    twin = FakeUnsealer()
    twin.keys[URI] = FakeKey(versions=system.unsealers["eu"].key(URI).versions)
    cores = [system.core("core-eu-1"), system.core("core-eu-2", unsealer=twin)]
    await asyncio.gather(*(core.start(regions=False) for core in cores))
    await cores[0].make(tenant())
    cores[1].learn(LINK, tenant())
    for core in cores:
        await core.loader.ring("acme")
    twin.key(URI).state = L1State.DISABLED
    await until(lambda: all(core.revocations.killed("acme") for core in cores), 60)
    for _ in range(300):
        await let_pass(1)
        assert all(core.revocations.killed("acme") for core in cores)
    twin.key(URI).state = L1State.ENABLED
    await until(lambda: not any(core.revocations.killed("acme") for core in cores), 150)


async def test_a_refusal_after_the_lift_kills_again(system):
    (core,) = await started(system, "core-eu-1")
    key = system.unsealers["eu"].key(URI)
    for count in (1, 2, 3):
        key.state = L1State.DISABLED
        await until(lambda count=count: len(l1_holds(core)) == count, 12)
        assert core.revocations.killed("acme")
        key.state = L1State.ENABLED
        await until(lambda: not core.revocations.killed("acme"), 60 * 2**count)
        await until_served(core, 5)
