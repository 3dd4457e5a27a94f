"""A stream that was rolled back is noticed, and all freshness is void."""

import asyncio

import pytest
from kcm_killswitch.replica.lease_keeper import BEFORE_EVERYTHING
from kcm_runtime.nats.ports import Entry
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.fakes.stream_log import nothing
from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.lease_rig import Held, foreign, hold_place, own, own_record
from tests.unit.switch.statements import held, hold, signed


async def test_a_rollback_is_noticed_by_the_acknowledgement(system):
    """The own record is gone, and the broker compares nothing: a write is stored where ours was."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    for number in range(5):
        incarnation.stream.store(*foreign(incarnation, number))
    await settled()
    incarnation.stream.go_back(({}, 0), restart=False)
    put = incarnation.log.put

    async def without_comparison(subject, body, *, expected=None, ttl=None):
        incarnation.log.put = put
        return await put(subject, body, ttl=ttl)

    incarnation.log.put = without_comparison
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
