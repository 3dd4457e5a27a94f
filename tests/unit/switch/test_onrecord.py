"""An incarnation's lease entry: what renews the lease, and how a rollback is noticed."""

import asyncio

import pytest
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.registry import shard_of
from kcm_killswitch.model.registry_lease import PATIENCE_S
from kcm_killswitch.replica.lease_keeper import BEFORE_EVERYTHING, SHOW_S
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.stream_log import nothing
from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.rig import VERIFIER, held, hold, signed, tenant

SAME_SHARD = [name for name in map(str, range(200)) if shard_of(name) == 0][:2]


def own(incarnation):
    return subjects.control_lease(
        incarnation.region, incarnation.me.name, incarnation.me.incarnation
    )


def own_record(incarnation):
    return VERIFIER.lease(incarnation.stream.entries[own(incarnation)].data)


def foreign(incarnation, number=1, **changes):
    """A lease entry of another incarnation of the region, as it is stored."""
    fields = {"nonce": number.to_bytes(16, "big"), "first": 0, "ended": False, "holds": bytes(32)}
    fields["roster"] = 1
    record = Lease(
        instance="gw-eu-2",
        incarnation=b"another-boot-id-",
        role=Role.GATEWAY,
        region="eu",
        lease_ms=1,
        registry=[bytes(16)] * 16,
        **(fields | changes),
    )
    return (
        subjects.control_lease("eu", "gw-eu-2", b"another-boot-id-"),
        signed(Kind.LEASE, record, "gw-eu-2"),
    )


def hold_place(one):
    return subjects.control_hold("eu", one.scope, one.id)


class Held:
    """Keeps operations of a log back until they are let go."""

    def __init__(self, operation, subject=None):
        self.wanted = (operation, subject)
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, operation, subject):
        if operation == self.wanted[0] and self.wanted[1] in (None, subject):
            self.arrived.set()
            await self.go.wait()


async def test_a_boot_that_started_has_a_lease_and_says_when_it_began(system):
    incarnation = system.incarnation("gw-eu-1")
    assert incarnation.freshness.lease.until() == EXPIRED
    await incarnation.start()
    assert incarnation.live()
    assert own_record(incarnation).first == incarnation.stream.history[0].sequence


async def test_the_lease_is_kept_for_as_long_as_the_broker_answers(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    for _ in range(100):
        await let_pass(1)
        assert incarnation.live()
    incarnation.log.disconnect()
    await let_pass(system.timing.control_lease_s)
    assert not incarnation.live()
    incarnation.log.reconnect()
    await until(incarnation.live)


async def test_a_write_that_is_acknowledged_but_not_delivered_renews_nothing(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    before = incarnation.freshness.lease.until()
    incarnation.follower.paused = True
    await let_pass(system.timing.renew_every_s + 1)
    assert len(incarnation.log.puts) > 2
    assert incarnation.freshness.lease.until() == before
    await let_pass(system.timing.control_lease_s)
    assert not incarnation.live()


async def test_deliveries_without_an_own_write_renew_nothing(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    held_back = Held("put")
    incarnation.log.before = held_back
    for number in range(30):
        incarnation.stream.store(*foreign(incarnation, number))
        await let_pass(0.5)
    assert not incarnation.live()
    held_back.go.set()


async def test_the_lease_counts_from_the_beginning_of_the_write_however_late_it_is_acknowledged(
    system,
):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    late = Held("ack", own(incarnation))
    incarnation.log.before = late
    renewal = asyncio.create_task(incarnation.switch.renew())
    await late.arrived.wait()
    began = incarnation.clock.elapsed()
    await let_pass(4)
    late.go.set()
    mark = await renewal
    assert began - 1 < incarnation.freshness.lease.moment(mark.sequence) <= began


async def test_a_lost_acknowledgement_is_adopted_and_renews_nothing(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    era, before = incarnation.freshness.era, incarnation.freshness.lease.until()
    incarnation.log.acks_to_lose = 1
    with pytest.raises(KcmError):
        await incarnation.switch.renew()
    assert (
        incarnation.stream.entries[own(incarnation)].sequence > incarnation.freshness.mark.sequence
    )
    await settled()
    assert incarnation.freshness.lease.until() == before
    with pytest.raises(KcmError):  # finds the one whose acknowledgement was lost
        await incarnation.switch.renew()
    mark = await incarnation.switch.renew()
    assert incarnation.freshness.era == era
    assert incarnation.freshness.mark == mark
    assert incarnation.live()


async def test_lost_acknowledgements_of_the_very_first_writes_keep_nobody_from_starting(system):
    incarnation = system.incarnation("gw-eu-1")
    incarnation.log.acks_to_lose = 3
    await incarnation.start()
    assert incarnation.live()
    await until(lambda: own_record(incarnation).first)
    # What is told is never before the true beginning, and nothing was served before it.
    assert incarnation.stream.history[0].sequence <= own_record(incarnation).first


async def test_a_rollback_is_noticed_by_the_acknowledgement(system):
    """The own record is gone, so a write that expects none is stored, at a place seen before."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    for number in range(5):
        incarnation.stream.store(*foreign(incarnation, number))
    await settled()
    incarnation.stream.go_back(({}, 0), restart=False)
    incarnation.switch.record._expected = 0
    era = incarnation.freshness.era
    with pytest.raises(KcmError) as caught:
        await incarnation.switch.renew()
    assert caught.value.code is Code.UNAVAILABLE
    assert incarnation.freshness.era > era
    assert not incarnation.live()
    await until(incarnation.live)
    await until(lambda: own_record(incarnation).first == BEFORE_EVERYTHING)


async def test_a_rollback_is_noticed_by_compare_and_set_though_the_stream_has_grown_again(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    place = incarnation.stream.snapshot()
    await incarnation.switch.caught_up()
    incarnation.stream.go_back(place, restart=False)
    for number in range(20):  # the lost places are taken by others
        incarnation.stream.store(*foreign(incarnation, number))
    era = incarnation.freshness.era
    with pytest.raises(KcmError):
        await incarnation.switch.renew()
    assert incarnation.freshness.era > era
    assert not incarnation.live()
    await until(incarnation.live)


async def test_a_rollback_is_noticed_by_another_own_record_that_is_read_back(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    incarnation.follower.paused = True
    mark = await incarnation.switch.renew()
    era = incarnation.freshness.era
    record = own_record(incarnation).model_copy(update={"nonce": b"another nonce..."})
    incarnation.switch.reader.receive(
        Entry(mark.sequence, own(incarnation), signed(Kind.LEASE, record, "gw-eu-1"))
    )
    assert incarnation.freshness.era > era
    assert not incarnation.live()


@pytest.mark.parametrize("what", ["lease", "hold"])
async def test_a_rollback_is_noticed_by_whatever_else_lies_where_the_own_record_was_acknowledged(
    system, what
):
    """Acknowledged *and read back*: somebody else's record or a hold at that place is not it."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    incarnation.follower.paused = True
    mark = await incarnation.switch.renew()
    before, era = incarnation.freshness.lease.until(), incarnation.freshness.era
    one = hold()
    subject, data = foreign(incarnation) if what == "lease" else (hold_place(one), held(one))
    incarnation.switch.reader.receive(Entry(mark.sequence, subject, data))
    assert incarnation.freshness.lease.until() <= before
    assert incarnation.freshness.era > era


async def test_what_was_delivered_before_the_acknowledgement_has_to_be_the_own_record(system):
    """The consumer's broker had something else at that place when the leader acknowledged it."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    late = Held("ack", own(incarnation))
    incarnation.log.before = late
    incarnation.follower.paused = True
    renewal = asyncio.create_task(incarnation.switch.renew())
    await late.arrived.wait()
    sequence = incarnation.stream.entries[own(incarnation)].sequence
    before = incarnation.freshness.lease.until()
    incarnation.switch.reader.receive(Entry(sequence, *foreign(incarnation)))
    incarnation.log.before = nothing
    late.go.set()
    with pytest.raises(KcmError):
        await renewal
    assert incarnation.freshness.lease.until() <= before
    incarnation.follower.resume()
    await until(incarnation.live)


async def test_an_own_record_that_expired_is_no_end(system):
    """A paused incarnation: its record is gone when it wakes up, and it begins anew."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    incarnation.log.disconnect()
    await let_pass(130)
    incarnation.stream.expire(own(incarnation))
    incarnation.log.reconnect()
    assert not incarnation.live()
    await until(incarnation.live)
    await until(lambda: own_record(incarnation).first == BEFORE_EVERYTHING)


async def test_a_stream_that_was_made_anew_is_read_from_its_start(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(held(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    incarnation.stream.recreate()
    await until(lambda: hold_place(one) in incarnation.stream.entries)
    await until(incarnation.live)
    await until(lambda: incarnation.switch.all_durable)


async def test_renewals_of_the_same_moment_share_one_write_that_begins_later_than_the_call(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    under_way = Held("put", own(incarnation))
    incarnation.log.before = under_way
    first = asyncio.create_task(incarnation.switch.renew())
    await under_way.arrived.wait()
    puts = len(incarnation.log.puts)
    await let_pass(0.5)
    asked = incarnation.clock.elapsed()
    later = [asyncio.create_task(incarnation.switch.renew()) for _ in range(50)]
    await let_pass(0.5)
    under_way.go.set()
    marks = {await one for one in later}
    assert marks != {await first}
    assert len(marks) == 1
    assert len(incarnation.log.puts) == puts + 2
    await settled()
    assert incarnation.freshness.lease.moment(marks.pop().sequence) >= asked


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


async def test_the_record_of_a_core_without_memory_is_no_word_on_the_registry(system):
    """What it knows may be older: nobody has to agree, and nobody who agrees is vouched for."""
    one, two = system.core("core-eu-1"), system.core("core-eu-2")
    gateway = system.incarnation("gw-eu-1")
    two.freshness.registry.without_memory()
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


async def test_nothing_is_put_on_record_after_the_end(system):
    """A new Core that reads the stream would wait for an incarnation that is gone."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    slow = Held("put", own(incarnation))
    incarnation.log.before = slow
    waiting = asyncio.create_task(incarnation.switch.renew())
    await slow.arrived.wait()
    more = asyncio.create_task(incarnation.switch.renew())
    ending = asyncio.create_task(incarnation.switch.reader.leases.end())
    await settled()
    slow.go.set()
    await asyncio.gather(waiting, more, ending, return_exceptions=True)
    last = asyncio.create_task(incarnation.switch.renew())
    await asyncio.gather(last, return_exceptions=True)
    assert own_record(incarnation).ended


# A consumer that is made anew


async def test_a_hold_that_was_not_delivered_yet_is_not_skipped_by_a_new_consumer(system):
    """The last own record was acknowledged, and the consumer broke before it came to the hold."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    incarnation.follower.paused = True
    one = hold()
    incarnation.stream.store(hold_place(one), held(one))
    await incarnation.switch.renew()  # acknowledged behind the hold
    incarnation.log.disconnect()
    incarnation.log.reconnect()
    await until(lambda: incarnation.follower.remade == 2)
    await incarnation.switch.caught_up()
    assert incarnation.revocations.killed("acme")


async def test_reading_from_the_start_is_not_put_off_by_a_write_that_is_acknowledged_meanwhile(
    system,
):
    """Everything was forgotten; until the replay begins, the old consumer still delivers."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    early = incarnation.stream.snapshot()
    await incarnation.switch.caught_up()
    one = hold()
    incarnation.stream.go_back(early, restart=False)
    incarnation.stream.store(hold_place(one), held(one))  # at a place that was delivered already
    for number in range(10):
        incarnation.stream.store(*foreign(incarnation, number))
    await settled()
    incarnation.follower.gate.clear()
    with pytest.raises(KcmError):
        await incarnation.switch.renew()  # noticed
    mark = await incarnation.switch.renew()
    incarnation.switch.reader.receive(
        incarnation.stream.entries[own(incarnation)]
    )  # by the consumer of before
    assert mark.sequence == incarnation.stream.entries[own(incarnation)].sequence
    assert not incarnation.live(), "the stream was not read from its start yet"
    incarnation.follower.gate.set()
    await until(incarnation.live)
    assert incarnation.revocations.killed("acme")


async def test_caught_up_means_that_the_own_record_was_read_back(system):
    """Where the follower stood before the stream went back says nothing of the new one."""
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(held(one))
    for number in range(50):
        incarnation.stream.store(*foreign(incarnation, number))
    await until(lambda: incarnation.switch.durable_at(one.id))
    await settled()
    incarnation.follower.gate.clear()
    incarnation.stream.go_back(({}, 0), restart=False)
    with pytest.raises(KcmError):
        await incarnation.switch.renew()
    with pytest.raises(KcmError):
        await incarnation.switch.caught_up()
    # Nor does the place where the hold was before.
    assert (
        not incarnation.switch.durable_at(one.id) or hold_place(one) in incarnation.stream.entries
    )
    incarnation.follower.gate.set()
    await until(incarnation.live)


async def test_a_reconnect_seals_nobody(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    await incarnation.switch.caught_up()
    before = incarnation.freshness.lease.until()
    incarnation.log.reconnect()
    await until(lambda: incarnation.follower.remade == 2)
    assert incarnation.live()
    assert incarnation.freshness.lease.until() >= before - system.timing.renew_every_s


async def test_whoever_is_not_acknowledged_goes_to_another_node_before_the_lease_ends(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    lease_s = system.timing.control_lease_s
    await let_pass(5 * lease_s)
    assert (incarnation.log.moves, incarnation.bus.moves) == (0, 0)
    incarnation.log.connected = False
    await until(lambda: incarnation.log.moves)
    assert incarnation.live()
    await let_pass(3 * lease_s)
    assert incarnation.log.moves == incarnation.bus.moves
    assert 5 <= incarnation.log.moves <= 8
    incarnation.log.connected = True
    await until(incarnation.live)
    moves = incarnation.log.moves
    await let_pass(5 * lease_s)
    assert incarnation.log.moves == moves


async def test_the_end_of_a_boot_is_put_on_record_though_the_first_write_fails(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    failed = []

    async def once(operation, subject):
        if operation == "put" and not failed:
            failed.append(subject)
            raise KcmError(Code.UNAVAILABLE)

    incarnation.log.before = once
    await incarnation.switch.reader.leases.end()
    assert failed
    assert own_record(incarnation).ended
