"""Attestations of key use: the Cores of a region share them, and which of them count."""

from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.l1 import L1State

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.key_rig import l1_holds, serves, started, until_served
from tests.unit.switch.statements import LINK, URI, VERIFIER, tenant

TARGET = Target("acme-root", 1, "0")


async def test_attestations_are_shared_so_a_link_is_used_once_an_interval_and_region(system):
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


async def test_a_name_that_changes_with_every_session_unloads_nothing(system):
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


async def test_an_attestation_in_another_name_or_of_another_key_version_opens_nothing(system):
    (core,) = await started(system, "core-eu-1")
    mark = await core.switch.caught_up()
    for key in (
        AttestedKey(TARGET, "somebody else"),
        AttestedKey(Target("acme-root", 1, "1"), "fake"),
        AttestedKey(Target("acme-root", 2, "0"), "fake"),
        AttestedKey(Target("other", 1, "0"), "fake"),
    ):
        core.freshness.attestations.forget()
        assert core.freshness.attested(key, mark)
        assert core.admission.lapsed(core.clock.elapsed()) == ["acme"]


async def test_an_attestation_that_was_not_stored_purges_nothing_in_its_core(system):
    (core,) = await started(system, "core-eu-1")

    async def no_attestations(operation, subject):
        if operation == "put" and ".attestation." in subject:
            raise KcmError(Code.UNAVAILABLE)

    core.log.before = no_attestations
    for _ in range(120):
        await let_pass(1)
        assert await serves(core) is True


async def test_a_rollback_unloads_and_everything_opens_again_by_itself(system):
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
    before = len(core.unsealer.calls)
    core.watch.hinted("somebody else's key")
    await let_pass(0.6)
    assert len(core.unsealer.calls) == before
    for _ in range(50):
        core.watch.hinted(TARGET.key_version)
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
