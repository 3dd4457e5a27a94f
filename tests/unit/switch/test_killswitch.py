"""The kill switch of one incarnation over ports that lose, repeat and delay."""

import asyncio

import pytest
from kcm_killswitch.model.log_position import NOWHERE
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import KeyUseAttestation, PeerLease
from kcm_schemas.l1 import L1State
from kcm_schemas.signed import Kind

from tests.fakes.virtual import let_pass, settled, until
from tests.fakes.wire import Message
from tests.unit.switch.rig import LINK, VERIFIER, held, hold, lifted, signed, tenant


def place(one, region="eu"):
    return subjects.control_hold(region, one.scope, one.id)


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
    incarnation.stream.store(place(one), held(one))
    await settled()
    assert incarnation.purged == ["acme"]
    assert [receipt.hold_id for receipt in receipts(system)] == [one.id]


async def test_a_boot_that_was_down_learns_the_hold_before_it_has_a_lease(system):
    one = hold()
    system.streams["eu"].store(place(one), held(one))
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
    await until(lambda: place(one) in incarnation.stream.entries)
    await until(
        lambda: (
            incarnation.switch.durable_at(one.id) == incarnation.stream.entries[place(one)].sequence
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
    assert incarnation.log.puts.count(place(one)) == 1


async def test_two_cores_that_write_a_hold_and_its_lift_agree_on_the_lift(system):
    cores = [system.incarnation("core-eu-1"), system.incarnation("core-eu-2")]
    await asyncio.gather(*(core.start() for core in cores))
    one = hold()
    cores[0].switch.learn(held(one))
    cores[1].switch.learn(lifted(one))
    await until(lambda: all(core.switch.all_durable for core in cores))
    assert system.streams["eu"].entries[place(one)].data == lifted(one)
    await until(lambda: not any(core.revocations.killed("acme") for core in cores))


async def test_a_hold_that_an_older_state_overwrote_is_written_again(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(lifted(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    for rubbish in (held(one), b"", b"\xff" * 9, held(hold(target="other"))):
        incarnation.stream.store(place(one), rubbish)
        await until(lambda: incarnation.stream.entries[place(one)].data == lifted(one))
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
    anchor = incarnation.switch.anchor()
    assert place_of_early < anchor < incarnation.switch.durable_at(late.id)
    kept = {s: e for s, e in incarnation.stream.entries.items() if e.sequence <= anchor}
    incarnation.stream.go_back((kept, anchor))
    await until(lambda: place(late) in incarnation.stream.entries)
    await until(lambda: incarnation.switch.durable_at(late.id))
    assert incarnation.switch.durable_at(early.id) == place_of_early


async def test_a_hold_that_was_acknowledged_and_is_not_there_is_not_durable(system):
    """The broker's disk was damaged: it takes messages under some subjects and forgets them."""
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.stream.forgets.add(place(one))
    await tell(system, one)
    await until(lambda: incarnation.log.puts.count(place(one)) >= 3)
    assert incarnation.switch.durable_at(one.id) == 0
    assert not incarnation.switch.all_durable
    assert incarnation.count("hold.durable") == 0
    incarnation.stream.forgets.clear()  # somebody restarted it
    await until(lambda: incarnation.switch.durable_at(one.id))
    assert incarnation.switch.durable_at(one.id) == incarnation.stream.entries[place(one)].sequence
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
    incarnation.stream.store(place(one), held(one, "core-eu-2"))
    await settled()
    assert incarnation.purged == []
    assert not incarnation.revocations.killed("acme")
    assert incarnation.count("trust.refused") == 2, "each for its own reason"
    for _ in range(5):
        incarnation.stream.store(place(one), held(one, "core-eu-2"))
        await settled()
    await incarnation.close()
    told = [fields["count"] for kind, fields in incarnation.events if kind == "trust.refused"]
    assert told == [1, 1, 5], "what was only counted is on record before the end"


# Peer leases and attestations


async def with_mark(system, name="gw-eu-1"):
    incarnation = system.incarnation(name)
    await incarnation.start()
    return incarnation, await incarnation.switch.caught_up()


def peer_lease(mark, region="eu", other="us", highest=NOWHERE, roster=1):
    return PeerLease(
        region=region,
        other=other,
        position=mark.sequence,
        nonce=mark.nonce,
        stored=highest.sequence,
        hold=highest.nonce,
        roster=roster,
    )


def peer_lease_entry(incarnation, statement, signer):
    subject = subjects.control_peer_lease("eu", statement.other)
    return incarnation.stream.store(subject, signed(Kind.PEER_LEASE, statement, signer))


async def test_a_fence_of_a_core_of_the_region_is_believed(system):
    incarnation, mark = await with_mark(system)
    heard = []
    incarnation.switch.listen(heard.append, heard.append)
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await settled()
    assert incarnation.freshness.knows("us")
    assert heard == [peer_lease(mark)]


@pytest.mark.parametrize(
    ("signer", "region"),
    [("gw-eu-1", "eu"), ("core-us-1", "eu"), ("core-us-1", "us"), ("security", "eu")],
    ids=["a gateway", "a core of another region", "another region's peer lease", "an operator"],
)
async def test_a_fence_that_nobody_may_sign_is_ignored(system, signer, region):
    incarnation, mark = await with_mark(system)
    peer_lease_entry(
        incarnation, peer_lease(mark, region, "us" if region == "eu" else "ap"), signer
    )
    await settled()
    assert not incarnation.freshness.knows("us")
    assert not incarnation.freshness.knows("ap")
    assert incarnation.count("trust.refused") == 1


async def test_a_fence_of_a_region_with_a_higher_roster_is_not_believed(system):
    """What holds there may be lifted by the roster that counts here."""
    incarnation, mark = await with_mark(system)
    peer_lease_entry(
        incarnation, peer_lease(mark, roster=incarnation.me.rosters.version + 1), "core-eu-1"
    )
    await settled()
    assert not incarnation.freshness.knows("us")
    assert incarnation.count("trust.refused") == 0


async def test_a_fence_with_a_mark_of_another_history_is_not_believed(system):
    incarnation, mark = await with_mark(system)
    stranger = type(mark)(mark.sequence, b"n" * 16)
    peer_lease_entry(incarnation, peer_lease(stranger), "core-eu-1")
    await settled()
    assert not incarnation.freshness.knows("us")


async def test_a_fence_of_before_a_rollback_that_arrives_late_says_nothing(system):
    incarnation, mark = await with_mark(system)
    incarnation.stream.recreate()
    for number in range(mark.sequence):
        incarnation.stream.store(f"kcm.v1.eu.control.lease.filler.{number:032x}", b"filler")
    await until(incarnation.live)
    await until(lambda: incarnation.follower.position > mark.sequence)
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await settled()
    assert not incarnation.freshness.knows("us")


async def test_a_fence_that_is_repeated_does_not_put_off_the_next_question(system):
    """A consumer that is made anew again and again delivers the same peer lease every time."""
    core = system.core("core-eu-1")
    other = system.core("core-us-1")
    await other.start(watch=False)
    await core.start(watch=False)
    await until(lambda: core.freshness.knows("us"))
    subject = subjects.control_peer_lease("eu", "us")
    old = core.stream.entries[subject].data
    asked = []
    system.wire.loses = lambda sender, _, about: bool(
        asked.append(sender)
        if sender == "core-eu-1" and about == subjects.pull("us", "eu")
        else None
    )
    for _ in range(20):
        core.switch.reader.receive(Entry(core.follower.position, subject, old))
        await let_pass(1)
    assert len(asked) >= 5


def attestation(mark, state=L1State.ENABLED, region="eu"):
    return KeyUseAttestation(
        region=region, link="acme-root", link_revision=1, key_version="0", principal="fake",
        state=state, position=mark.sequence, nonce=mark.nonce,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("signer", "region"),
    [("gw-eu-1", "eu"), ("core-us-1", "eu"), ("core-us-1", "us")],
)
async def test_a_proof_that_nobody_may_sign_is_ignored(system, signer, region):
    core = system.core("core-eu-1")
    await core.start(regions=False)
    mark = await core.switch.caught_up()
    raw = signed(Kind.KEY_USE, attestation(mark, region=region), signer)
    core.stream.store(subjects.control_key_use("eu", "acme-root", bytes(32)), raw)
    await settled()
    assert core.freshness.attestations._positions == {}
    assert core.count("trust.refused") == 1


async def test_waiting_for_other_regions_ends_when_they_are_heard_retired_or_too_slow(system):
    incarnation, mark = await with_mark(system)
    waiting = asyncio.create_task(incarnation.switch.heard_regions(1_000))
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await let_pass(1)
    assert not waiting.done()
    incarnation.switch.learn(held(hold(scope="region", target="ap")))
    await asyncio.wait_for(waiting, 1)
    system.streams["eu"].recreate()
    await until(lambda: not incarnation.freshness.knows("us"))
    await asyncio.wait_for(incarnation.switch.heard_regions(0.5), 2)
