"""A Core's lease entry shows its registry, and who differs serves nothing."""

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.registry_lease import PATIENCE_S
from kcm_killswitch.model.registry_objects import shard_of
from kcm_killswitch.replica.lease_keeper import SHOW_S

from tests.fakes.stream_log import nothing
from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.lease_rig import Held, own, own_record
from tests.unit.switch.statements import tenant

SAME_SHARD = [name for name in map(str, range(200)) if shard_of(name) == 0][:2]


async def test_two_cores_that_accept_at_once_keep_no_gateway_from_serving(system):
    """The record of one shows what no Gateway ever knew: its own record without the other's."""
    one, gateway = system.core("core-eu-1"), system.incarnation("gw-eu-1")
    await one.start(regions=False, watch=False)
    await gateway.start()
    await let_pass(system.timing.renew_every_s + 1)  # they have agreed since its lease began
    mine, other = [tenant(name) for name in SAME_SHARD]
    gateway.learn(other, mine)
    one.learn(mine)
    await one.switch.renew()
    await settled()
    known, now = gateway.freshness.registry, gateway.clock.elapsed
    assert known.until(now()) < FOREVER
    one.learn(other)
    assert SHOW_S < PATIENCE_S < system.timing.renew_every_s
    while known.until(now()) < FOREVER:
        assert known.until(now()) > now()
        await let_pass(0.1)


async def test_who_differs_when_its_lease_begins_anew_serves_nothing(system):
    """It was away while a tenant moved and the new link was killed: nobody waited for it."""
    core, gateway = system.core("core-eu-1"), system.incarnation("gw-eu-1")
    await core.start(regions=False, watch=False)
    await gateway.start()
    away = Held("put", own(gateway))
    gateway.log.before = away
    await let_pass(system.timing.control_lease_s + 1)
    assert gateway.freshness.lease.until() <= gateway.clock.elapsed()
    core.learn(tenant(SAME_SHARD[0]))
    await core.switch.renew()
    await settled()
    away.go.set()
    gateway.log.before = nothing
    await until(lambda: gateway.freshness.lease.until() > gateway.clock.elapsed())
    assert gateway.freshness.registry.until(gateway.clock.elapsed()) == EXPIRED
    gateway.learn(tenant(SAME_SHARD[0]))
    assert gateway.freshness.registry.until(gateway.clock.elapsed()) == FOREVER


async def test_the_record_of_a_core_without_a_baseline_is_no_word_on_the_registry(system):
    """What it knows may be older: nobody has to agree, and nobody who agrees is vouched for."""
    one, two = system.core("core-eu-1"), system.core("core-eu-2")
    gateway = system.incarnation("gw-eu-1")
    two.freshness.registry.without_baseline()
    one.learn(tenant(SAME_SHARD[0]))
    gateway.learn(tenant(SAME_SHARD[0]))
    await one.start(regions=False, watch=False)
    await two.start(regions=False, watch=False)
    await gateway.start()
    for incarnation in (one, gateway):
        assert incarnation.freshness.registry.until(incarnation.clock.elapsed()) == FOREVER
    assert two.freshness.registry.until(two.clock.elapsed()) == EXPIRED
    assert (await two.switch.facts(bytes(16)))[1].settled is False
    two.learn(tenant(SAME_SHARD[0]))
    two.freshness.registry.remembered()
    two.learn(tenant(SAME_SHARD[1]))  # and from now on it is one
    await until(lambda: gateway.freshness.registry.until(gateway.clock.elapsed()) < FOREVER)


async def test_a_core_shows_a_registry_that_changes_at_most_once_a_second(system):
    core, gateway = system.core("core-eu-1"), system.incarnation("gw-eu-1")
    await core.start(regions=False, watch=False)
    await gateway.start()
    before = len(core.log.puts), len(gateway.log.puts)
    for number in range(60):
        for incarnation in (core, gateway):
            incarnation.learn(tenant(f"t{number}"))
        await let_pass(0.1)
    await let_pass(SHOW_S)
    assert own_record(core).registry == core.revocations.registry_digests
    assert 6 <= len(core.log.puts) - before[0] <= 8
    assert len(gateway.log.puts) - before[1] <= 3  # nobody compares theirs
    await let_pass(10 * system.timing.renew_every_s)
    assert len(core.log.puts) - before[0] <= 8 + 10
