"""The kill switch of one incarnation over ports that lose, repeat and delay."""

import asyncio

import pytest
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import settled, until
from tests.fakes.wire import Message
from tests.unit.switch.statements import LINK, VERIFIER, at, held, hold, lifted, tenant


def broadcast(one, raw=None):
    return Message(subjects.broadcast_hold("eu", one.scope, one.id), raw or held(one))


async def tell(system, one, raw=None):
    """Somebody outside broadcasts."""
    await system.wire.join("outside").publish(*_parts(broadcast(one, raw)))


def _parts(message):
    return message.subject, message.data


def receipts(system):
    found = [m for m in system.wire.sent if ".receipt." in m.subject]
    return [VERIFIER.receipt(one.data) for one in found]


async def test_the_purge_comes_before_anything_that_waits_or_can_fail(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    seen = []
    incarnation.on_purge = lambda name: seen.append(
        (name, len(incarnation.log.puts), len(incarnation.events))
    )
    before = len(incarnation.log.puts), len(incarnation.events)
    coroutine = incarnation.switch.broadcasts.receive(broadcast(hold()))
    with pytest.raises(StopIteration):
        coroutine.send(None)  # it ends without having waited once
    assert seen == [("acme", *before)]


async def test_a_purge_waits_neither_for_storage_nor_for_the_wire(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    incarnation.log.connected = incarnation.bus.connected = False
    incarnation.switch.learn(held(hold()))
    assert incarnation.purged == ["acme"]
    incarnation.log.connected = incarnation.bus.connected = True


async def test_a_hold_that_every_broadcast_lost_arrives_through_the_stream(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.stream.store(at(one), held(one))
    await settled()
    assert incarnation.purged == ["acme"]
    assert [receipt.hold_id for receipt in receipts(system)] == [one.id]


async def test_an_incarnation_that_was_down_learns_the_hold_before_it_has_a_lease(system):
    one = hold()
    system.streams["eu"].store(at(one), held(one))
    incarnation = system.incarnation("gw-eu-1")
    incarnation.on_purge = lambda _: not incarnation.live() or pytest.fail("it had a lease already")
    await incarnation.start()
    assert incarnation.revocations.killed("acme")
    assert incarnation.live()


async def test_a_core_that_hears_a_broadcast_makes_it_durable(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    await tell(system, one)
    await until(lambda: at(one) in incarnation.stream.entries)
    await until(
        lambda: (
            incarnation.switch.durable_at(one.id) == incarnation.stream.entries[at(one)].sequence
        )
    )


async def test_a_gateway_stores_nothing_but_its_own_record(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    await tell(system, hold())
    await settled()
    assert {".lease." in subject for subject in incarnation.log.puts} == {True}


async def test_a_write_whose_acknowledgement_is_lost_is_found_and_not_repeated_for_ever(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.log.acks_to_lose = 1
    await tell(system, one)
    await until(lambda: incarnation.switch.durable_at(one.id))
    assert incarnation.log.puts.count(at(one)) == 1


async def test_two_cores_that_write_a_hold_and_its_lift_agree_on_the_lift(system):
    cores = [system.incarnation("core-eu-1"), system.incarnation("core-eu-2")]
    await asyncio.gather(*(core.start() for core in cores))
    one = hold()
    cores[0].switch.learn(held(one))
    cores[1].switch.learn(lifted(one))
    await until(lambda: all(core.switch.all_durable for core in cores))
    assert system.streams["eu"].entries[at(one)].data == lifted(one)
    await until(lambda: not any(core.revocations.killed("acme") for core in cores))


async def test_a_hold_that_an_older_state_overwrote_is_written_again(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(lifted(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    for rubbish in (held(one), b"", b"\xff" * 9, held(hold(target="other"))):
        incarnation.stream.store(at(one), rubbish)
        await until(lambda: incarnation.stream.entries[at(one)].data == lifted(one))
    assert not incarnation.revocations.killed("acme")


async def test_holds_above_the_anchor_are_looked_up_again_after_a_resume(system):
    """What was stored above it may be gone: a rollback took the hold, and nobody heard of that."""
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    early, late = hold(), hold()
    incarnation.switch.learn(held(early))
    await until(lambda: incarnation.switch.durable_at(early.id))
    await incarnation.switch.caught_up()
    place_of_early = incarnation.switch.durable_at(early.id)
    incarnation.switch.learn(held(late))
    await until(lambda: incarnation.switch.durable_at(late.id))
    anchor = incarnation.switch.reader.anchor()
    assert place_of_early < anchor < incarnation.switch.durable_at(late.id)
    kept = {s: e for s, e in incarnation.stream.entries.items() if e.sequence <= anchor}
    incarnation.stream.go_back((kept, anchor))
    await until(lambda: at(late) in incarnation.stream.entries)
    await until(lambda: incarnation.switch.durable_at(late.id))
    assert incarnation.switch.durable_at(early.id) == place_of_early


async def test_a_hold_that_was_acknowledged_and_is_not_there_is_not_durable(system):
    """The broker's disk was damaged: it takes messages under some subjects and forgets them."""
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.stream.forgets.add(at(one))
    await tell(system, one)
    await until(lambda: incarnation.log.puts.count(at(one)) >= 3)
    assert incarnation.switch.durable_at(one.id) == 0
    assert not incarnation.switch.all_durable
    assert incarnation.count("hold.durable") == 0
    incarnation.stream.forgets.clear()  # somebody restarted it
    await until(lambda: incarnation.switch.durable_at(one.id))
    assert incarnation.switch.durable_at(one.id) == incarnation.stream.entries[at(one)].sequence
    (said,) = (fields for kind, fields in incarnation.events if kind == "hold.durable")
    assert (said["tenant"], said["hold"], said["target"]) == ("acme", one.id, "tenant acme")


async def test_a_hold_that_the_stream_lost_is_not_durable_while_it_is_read_again(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(held(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    incarnation.follower.gate.clear()

    async def no_more_holds(operation, subject):
        if operation == "put" and ".hold." in subject:
            raise KcmError(Code.UNAVAILABLE)

    incarnation.log.before = no_more_holds
    incarnation.stream.go_back(({}, 0), restart=False)
    with pytest.raises(KcmError):
        await incarnation.switch.renew()
    assert not incarnation.switch.all_durable
    assert incarnation.switch.durable_at(one.id) == 0
    incarnation.follower.gate.set()


async def test_a_fault_with_one_tenant_spares_no_other_and_gives_no_receipt_until_it_is_mended(
    system,
):
    incarnation = system.incarnation("gw-eu-1")
    incarnation.learn(LINK, *(tenant(name) for name in "abc"))
    await incarnation.start()
    incarnation.broken = {"b"}
    one = hold(scope="link", target="acme-root")
    await tell(system, one)
    await settled()
    assert incarnation.purged == ["a", "c"]
    assert receipts(system) == []
    incarnation.broken.clear()
    await tell(system, one)
    await settled()
    assert incarnation.purged == ["a", "c", "b"]
    assert len(receipts(system)) == 1


async def test_a_forged_hold_has_no_effect_and_is_recorded(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    await tell(system, one, held(one, "gw-eu-1"))
    incarnation.stream.store(at(one), held(one, "core-eu-2"))
    await settled()
    assert incarnation.purged == []
    assert not incarnation.revocations.killed("acme")
    assert incarnation.count("trust.refused") == 2, "each for its own reason"
    for _ in range(5):
        incarnation.stream.store(at(one), held(one, "core-eu-2"))
        await settled()
    await incarnation.close()
    told = [fields["count"] for kind, fields in incarnation.events if kind == "trust.refused"]
    assert told == [1, 1, 5], "what was only counted is on record before the end"
