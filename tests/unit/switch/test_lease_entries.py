"""An incarnation's lease entry: what renews the lease, and how a rollback is noticed."""

import asyncio

import pytest
from kcm_killswitch.model.control_lease import EXPIRED
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.lease_rig import Held, foreign, own, own_record


async def test_an_incarnation_that_started_has_a_lease_and_states_when_it_began(system):
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
        incarnation.stream.entries[own(incarnation)].sequence
        > incarnation.freshness.position.sequence
    )
    await settled()
    assert incarnation.freshness.lease.until() == before
    with pytest.raises(KcmError):  # finds the one whose acknowledgement was lost
        await incarnation.switch.renew()
    mark = await incarnation.switch.renew()
    assert incarnation.freshness.era == era
    assert incarnation.freshness.position == mark
    assert incarnation.live()


async def test_lost_acknowledgements_of_the_very_first_writes_keep_nobody_from_starting(system):
    incarnation = system.incarnation("gw-eu-1")
    incarnation.log.acks_to_lose = 3
    await incarnation.start()
    assert incarnation.live()
    await until(lambda: own_record(incarnation).first)
    # What is told is never before the true beginning, and nothing was served before it.
    assert incarnation.stream.history[0].sequence <= own_record(incarnation).first


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


async def test_no_lease_entry_is_stored_after_the_end(system):
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


async def test_the_end_of_an_incarnation_is_stored_though_the_first_write_fails(system):
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
