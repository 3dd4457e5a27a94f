"""A consumer that is made again skips nothing, and seals nobody."""

import pytest
from kcm_schemas.codes import KcmError

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.lease_rig import foreign, hold_place, own
from tests.unit.switch.statements import held, hold

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


async def test_a_reconnect_unloads_nobody(system):
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
