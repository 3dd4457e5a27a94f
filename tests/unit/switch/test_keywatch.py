"""A customer's key refuses, cannot be reached, and is allowed again: one Core and several."""

import asyncio

import pytest
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.l1 import L1State

from tests.fakes.unsealer import FakeKey, FakeUnsealer
from tests.fakes.virtual import let_pass, until
from tests.unit.switch.key_rig import l1_holds, serves, started
from tests.unit.switch.statements import LINK, URI, tenant

REFUSED = [state for state in L1State if state.refused]


@pytest.mark.parametrize("state", REFUSED)
async def test_a_key_that_refuses_kills_everything_on_the_link(system, state):
    (core,) = await started(system, "core-eu-1", tenants=[tenant("acme"), tenant("beta")])
    system.unsealers["eu"].key(URI).state = state
    await until(lambda: l1_holds(core), system.timing.probe_interval_s + 1)
    assert core.vault.open_tenants == []
    assert await serves(core) is Code.TENANT_KILLED
    assert await serves(core, "beta") is Code.TENANT_KILLED


async def test_the_purge_comes_before_the_hold_is_signed_broadcast_or_stored(system):
    (core,) = await started(system, "core-eu-1")
    seen = []
    core.on_purge = lambda name: seen.append(
        (
            name,
            len(l1_holds(core)),
            sum(".hold." in m.subject for m in system.wire.sent),
            sum(".hold." in e.subject for e in core.stream.history),
        )
    )
    system.unsealers["eu"].key(URI).state = L1State.DISABLED
    await until(lambda: l1_holds(core), 11)
    assert seen[0] == ("acme", 0, 0, 0)
    (record,) = l1_holds(core)
    subject = subjects.control_hold("eu", "link", record.hold.id)
    await until(lambda: subject in core.stream.entries)
    assert next(m.data for m in system.wire.sent if ".ctl.hold." in m.subject) == record.raw


async def test_other_regions_hear_of_a_key_that_refuses_here(system):
    await started(system, "core-eu-1")
    other = system.incarnation("gw-us-1")
    await other.start()
    other.learn(LINK, tenant(regions=["eu", "us"]))
    system.unsealers["eu"].key(URI).state = L1State.DELETED
    await until(lambda: other.purged, 11)
    assert other.revocations.killed("acme")


async def test_a_key_that_refuses_an_unseal_kills_as_a_probe_does(system):
    (core,) = await started(system, "core-eu-1")
    core.purge("acme")
    system.unsealers["eu"].key(URI).state = L1State.DISABLED
    assert await serves(core) is Code.TENANT_KILLED
    assert len(l1_holds(core)) == 1


async def test_forbidden_on_an_incarnation_that_never_used_the_key_unloads_here_alone(system):
    good = system.core("core-eu-1")
    wrong = system.core("core-eu-2", unsealer=FakeUnsealer())
    await asyncio.gather(good.start(regions=False), wrong.start(regions=False))
    await good.make(tenant())
    wrong.learn(LINK, tenant())
    wrong.unsealer.keys[URI] = FakeKey(L1State.FORBIDDEN)
    await good.loader.ring("acme")
    assert await serves(wrong) is Code.TENANT_UNAVAILABLE
    assert l1_holds(wrong) == []
    assert wrong.count("key.incident") == 1
    await let_pass(60)
    assert await serves(good) is True
    assert not good.revocations.killed("acme")


async def test_forbidden_on_an_incarnation_that_used_the_key_kills(system):
    cores = await started(system, "core-eu-1", "core-eu-2")
    system.unsealers["eu"].key(URI).state = L1State.FORBIDDEN
    await until(lambda: all(core.revocations.killed("acme") for core in cores), 12)


@pytest.mark.parametrize("state", [L1State.UNREACHABLE, L1State.INVALID])
async def test_a_key_that_nobody_can_ask_unloads_at_the_end_of_the_lease_and_opens_again(
    system, state
):
    (core,) = await started(system, "core-eu-1")
    key = system.unsealers["eu"].key(URI)
    key.state = state
    silent = core.clock.elapsed()
    sealed = lambda: "acme" not in core.vault.open_tenants  # noqa: E731
    lease = system.timing.l1_lease_s
    await let_pass(lease - system.timing.probe_interval_s - 2 * system.timing.renew_every_s)
    assert await serves(core) is True
    await until(sealed, lease)
    assert core.clock.elapsed() <= silent + lease + 1
    assert await serves(core) is Code.TENANT_UNAVAILABLE
    assert l1_holds(core) == []
    assert bool(core.count("key.incident")) == (state is L1State.INVALID)
    key.state = L1State.ENABLED
    assert await serves(core) is True


async def test_no_output_is_allowed_longer_than_a_lease_after_the_last_use(system):
    """Asked at every moment, whatever the key monitor does."""
    (core,) = await started(system, "core-eu-1")
    key = system.unsealers["eu"].key(URI)
    await let_pass(25)
    key.state = L1State.UNREACHABLE
    silent = core.clock.elapsed()
    while core.clock.elapsed() < silent + 60:
        try:
            left = core.admission.recheck(
                core.admission.admit("acme", core.clock.elapsed()), core.clock.elapsed()
            )
        except KcmError:
            pass
        else:
            if core.admission.is_open("acme"):
                assert core.clock.elapsed() + left <= silent + system.timing.l1_lease_s + 0.001
        await let_pass(0.1)
