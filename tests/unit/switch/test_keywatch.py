"""A customer's key refuses, cannot be reached, and is allowed again: one Core and several."""

import asyncio

import pytest
from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.l1 import L1State

from tests.fakes.unsealer import FakeKey, FakeUnsealer
from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.rig import LINK, URI, VERIFIER, held, hold, lifted, tenant

REFUSED = [state for state in L1State if state.refused]
TARGET = Target("acme-root", 1, "0")


async def started(system, *names, tenants=None, **options):
    """Cores that are on record, with the tenants' keys made and open."""
    cores = [system.core(name, **options.get(name, {})) for name in names]
    await asyncio.gather(*(core.start(regions=False) for core in cores))
    await cores[0].make(*(tenants or [tenant()]))
    for core in cores:
        core.learn(LINK, *(tenants or [tenant()]))
        for one in tenants or [tenant()]:
            await core.loader.ring(one.tenant)
    return cores


def serves(core, name="acme"):
    """Whether a Core gives an output, opening what is closed."""

    async def once():
        try:
            permit = core.admission.admit(name, core.clock.elapsed())
            await core.loader.ring(name)
            core.admission.recheck(permit, core.clock.elapsed())
        except KcmError as error:
            return error.code
        return True

    return once()


async def until_served(core, within_s, name="acme"):
    end = core.clock.elapsed() + within_s
    while (answer := await serves(core, name)) is not True:
        assert core.clock.elapsed() < end, answer
        await let_pass(0.25)


def l1_holds(core):
    return [record for record in core.revocations.holds if record.hold.cause == "l1"]


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


async def test_forbidden_on_a_boot_that_never_used_the_key_seals_here_alone(system):
    good = system.core("core-eu-1")
    wrong = system.core("core-eu-2", unsealer=FakeUnsealer())
    await asyncio.gather(good.start(regions=False), wrong.start(regions=False))
    await good.make(tenant())
    wrong.learn(LINK, tenant())
    wrong.unsealer.keys[URI] = FakeKey(L1State.FORBIDDEN)
    await good.loader.ring("acme")
    assert await serves(wrong) is Code.TENANT_SEALED
    assert l1_holds(wrong) == []
    assert wrong.count("key.incident") == 1
    await let_pass(60)
    assert await serves(good) is True
    assert not good.revocations.killed("acme")


async def test_forbidden_on_a_boot_that_used_the_key_kills(system):
    cores = await started(system, "core-eu-1", "core-eu-2")
    system.unsealers["eu"].key(URI).state = L1State.FORBIDDEN
    await until(lambda: all(core.revocations.killed("acme") for core in cores), 12)


@pytest.mark.parametrize("state", [L1State.UNREACHABLE, L1State.INVALID])
async def test_a_key_that_nobody_can_ask_seals_at_the_end_of_the_lease_and_opens_again(
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
    assert await serves(core) is Code.TENANT_SEALED
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


async def test_a_boot_that_never_saw_the_tenant_open_lifts_what_its_region_placed(system):
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
    cores[1].watch._hold(TARGET, L1State.DISABLED)
    await until(lambda: cores[0].revocations.killed("acme"))
    gate.set()
    await settled()
    for core in cores:
        assert not core.holds._settling.ripe("acme-root")
        assert core.holds._settling._runs == {}


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


async def test_proofs_are_shared_so_a_link_is_used_once_an_interval_and_region(system):
    tenants = [tenant(f"t{n}") for n in range(50)]
    cores = [system.core(f"core-eu-{n}", chance=iter_chance(n)) for n in (1, 2, 3)]
    for core in cores:
        await core.start(regions=False)
        await let_pass(1.1)  # nobody writes when the others do
    await cores[0].make(*tenants)
    for core in cores:
        core.learn(LINK, *tenants)
        for one in tenants:
            await core.loader.ring(one.tenant)
    await let_pass(system.timing.probe_interval_s)
    system.unsealers["eu"].calls.clear()
    intervals = 10
    for _ in range(intervals * 10):
        await let_pass(system.timing.probe_interval_s / 10)
        for core in cores:
            assert len(core.vault.open_tenants) == 50
    asked = len(system.unsealers["eu"].calls)
    assert intervals <= asked <= intervals * 1.4, asked


def iter_chance(seed):
    """Different for every Core, the same in every run."""
    import random

    return random.Random(seed).random


async def test_a_name_that_changes_with_every_session_seals_nothing(system):
    """A machine's role has another access key every few hours: nobody has refused anything."""
    cores = await started(system, "core-eu-1", "core-eu-2")
    key = system.unsealers["eu"].key(URI)
    for count in range(30):
        key.principal = f"session {count // 3}"
        for _ in range(20):
            await let_pass(system.timing.probe_interval_s / 20)
            for core in cores:
                assert core.admission.live("acme", core.clock.elapsed()), count
    key.state = L1State.UNREACHABLE
    await let_pass(system.timing.l1_lease_s + 1)
    assert not any(core.admission.is_open("acme") for core in cores)


async def test_a_proof_in_another_name_or_of_another_key_version_opens_nothing(system):
    (core,) = await started(system, "core-eu-1")
    mark = await core.switch.caught_up()
    for key in (
        AttestedKey(TARGET, "somebody else"),
        AttestedKey(Target("acme-root", 1, "1"), "fake"),
        AttestedKey(Target("acme-root", 2, "0"), "fake"),
        AttestedKey(Target("other", 1, "0"), "fake"),
    ):
        core.freshness.attestations.forget()
        assert core.freshness.proven(key, mark)
        assert core.admission.lapsed(core.clock.elapsed()) == ["acme"]


async def test_a_proof_that_was_not_stored_does_not_seal_who_made_it(system):
    (core,) = await started(system, "core-eu-1")

    async def no_attestations(operation, subject):
        if operation == "put" and ".attestation." in subject:
            raise KcmError(Code.UNAVAILABLE)

    core.log.before = no_attestations
    for _ in range(120):
        await let_pass(1)
        assert await serves(core) is True


async def test_a_rollback_seals_and_everything_opens_again_by_itself(system):
    (core,) = await started(system, "core-eu-1")
    core.stream.recreate()
    await until(lambda: core.freshness.era > 0)
    await until_served(core, 15)
    assert VERIFIER.lease(
        core.stream.entries[subjects.control_lease("eu", "core-eu-1", core.me.incarnation)].data
    )


async def test_a_hint_asks_the_key_at_once_and_a_flood_of_them_does_not(system):
    (core,) = await started(system, "core-eu-1")
    await until_served(core, 5)
    await let_pass(0.5)
    (target,) = core.watch._plan.targets
    before = len(core.unsealer.calls)
    core.watch.hinted("somebody else's key")
    await let_pass(0.6)
    assert len(core.unsealer.calls) == before
    for _ in range(50):
        core.watch.hinted(target.key_version)
    await let_pass(0.6)
    assert len(core.unsealer.calls) == before + 1


async def test_a_key_that_opens_nothing_in_this_region_holds_nothing(system):
    """Nobody would believe it: else one Core's key could kill any link in every region."""
    core = system.core("core-eu-1")
    core.learn(LINK, tenant(regions=["us"]))
    await core.start(regions=False, watch=False)
    core.holds.place("acme-root", L1State.DISABLED)
    assert not l1_holds(core)
    core.learn(tenant("beta"))
    core.holds.place("acme-root", L1State.DISABLED)
    assert len(l1_holds(core)) == 1
