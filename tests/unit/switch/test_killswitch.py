"""The kill switch of one boot over ports that lose, repeat and delay."""

import asyncio

import pytest
from kcm_killswitch.model.log_position import NOWHERE
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Fence, Proof
from kcm_schemas.l1 import L1State
from kcm_schemas.signed import Kind

from tests.fakes.ports import Message
from tests.fakes.virtual import let_pass, settled, until
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
    boot = system.boot("core-eu-1")
    await boot.start()
    seen = []
    boot.on_purge = lambda name: seen.append((name, len(boot.log.puts), len(boot.events)))
    before = len(boot.log.puts), len(boot.events)
    coroutine = boot.switch._on_broadcast(broadcast(hold()))
    with pytest.raises(StopIteration):
        coroutine.send(None)  # it ends without having waited once
    assert seen == [("acme", *before)]


async def test_a_purge_waits_neither_for_storage_nor_for_the_wire(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    boot.log.connected = boot.bus.connected = False
    boot.switch.learning.learn(held(hold()))
    assert boot.purged == ["acme"]
    boot.log.connected = boot.bus.connected = True


async def test_a_hold_that_every_broadcast_lost_arrives_through_the_stream(system):
    boot = system.boot("gw-eu-1")
    await boot.start()
    one = hold()
    boot.stream.store(place(one), held(one))
    await settled()
    assert boot.purged == ["acme"]
    assert [receipt.hold_id for receipt in receipts(system)] == [one.id]


async def test_a_boot_that_was_down_learns_the_hold_before_it_has_a_lease(system):
    one = hold()
    system.streams["eu"].store(place(one), held(one))
    boot = system.boot("gw-eu-1")
    boot.on_purge = lambda _: not boot.live() or pytest.fail("it had a lease already")
    await boot.start()
    assert boot.revocations.killed("acme")
    assert boot.live()


async def test_a_core_that_hears_a_broadcast_makes_it_durable(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    await tell(system, one)
    await until(lambda: place(one) in boot.stream.entries)
    await until(lambda: boot.switch.durable_at(one.id) == boot.stream.entries[place(one)].sequence)


async def test_a_gateway_stores_nothing_but_its_own_record(system):
    boot = system.boot("gw-eu-1")
    await boot.start()
    await tell(system, hold())
    await settled()
    assert {".lease." in subject for subject in boot.log.puts} == {True}


async def test_a_write_whose_acknowledgement_is_lost_is_found_and_not_repeated_for_ever(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    boot.log.acks_to_lose = 1
    await tell(system, one)
    await until(lambda: boot.switch.durable_at(one.id))
    assert boot.log.puts.count(place(one)) == 1


async def test_two_cores_that_write_a_hold_and_its_lift_agree_on_the_lift(system):
    cores = [system.boot("core-eu-1"), system.boot("core-eu-2")]
    await asyncio.gather(*(core.start() for core in cores))
    one = hold()
    cores[0].switch.learning.learn(held(one))
    cores[1].switch.learning.learn(lifted(one))
    await until(lambda: all(core.switch.all_durable for core in cores))
    assert system.streams["eu"].entries[place(one)].data == lifted(one)
    await until(lambda: not any(core.revocations.killed("acme") for core in cores))


async def test_a_hold_that_an_older_state_overwrote_is_written_again(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    boot.switch.learning.learn(lifted(one))
    await until(lambda: boot.switch.durable_at(one.id))
    for rubbish in (held(one), b"", b"\xff" * 9, held(hold(target="other"))):
        boot.stream.store(place(one), rubbish)
        await until(lambda: boot.stream.entries[place(one)].data == lifted(one))
    assert not boot.revocations.killed("acme")


async def test_holds_above_the_anchor_are_looked_up_again_after_a_resume(system):
    """What was stored above it may be gone: a rollback took the hold, and nobody heard of that."""
    boot = system.boot("core-eu-1")
    await boot.start()
    early, late = hold(), hold()
    boot.switch.learning.learn(held(early))
    await until(lambda: boot.switch.durable_at(early.id))
    await boot.switch.caught_up()
    place_of_early = boot.switch.durable_at(early.id)
    boot.switch.learning.learn(held(late))
    await until(lambda: boot.switch.durable_at(late.id))
    anchor = boot.switch.anchor()
    assert place_of_early < anchor < boot.switch.durable_at(late.id)
    kept = {s: e for s, e in boot.stream.entries.items() if e.sequence <= anchor}
    boot.stream.go_back((kept, anchor))
    await until(lambda: place(late) in boot.stream.entries)
    await until(lambda: boot.switch.durable_at(late.id))
    assert boot.switch.durable_at(early.id) == place_of_early


async def test_a_hold_that_was_acknowledged_and_is_not_there_is_not_durable(system):
    """The broker's disk was damaged: it takes messages under some subjects and forgets them."""
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    boot.stream.forgets.add(place(one))
    await tell(system, one)
    await until(lambda: boot.log.puts.count(place(one)) >= 3)
    assert boot.switch.durable_at(one.id) == 0
    assert not boot.switch.all_durable
    assert boot.count("hold.durable") == 0
    boot.stream.forgets.clear()  # somebody restarted it
    await until(lambda: boot.switch.durable_at(one.id))
    assert boot.switch.durable_at(one.id) == boot.stream.entries[place(one)].sequence
    (said,) = (fields for kind, fields in boot.events if kind == "hold.durable")
    assert (said["tenant"], said["hold"], said["target"]) == ("acme", one.id, "tenant acme")


async def test_a_hold_that_the_stream_lost_is_not_durable_while_it_is_read_again(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    boot.switch.learning.learn(held(one))
    await until(lambda: boot.switch.durable_at(one.id))
    boot.follower.gate.clear()

    async def no_more_holds(operation, subject):
        if operation == "put" and ".hold." in subject:
            raise KcmError(Code.UNAVAILABLE)

    boot.log.before = no_more_holds
    boot.stream.go_back(({}, 0), restart=False)
    with pytest.raises(KcmError):
        await boot.switch.record.renew()
    assert not boot.switch.all_durable
    assert boot.switch.durable_at(one.id) == 0
    boot.follower.gate.set()


async def test_a_fault_with_one_tenant_spares_no_other_and_gives_no_receipt_until_it_is_mended(
    system,
):
    boot = system.boot("gw-eu-1")
    boot.learn(LINK, *(tenant(name) for name in "abc"))
    await boot.start()
    boot.broken = {"b"}
    one = hold(scope="link", target="acme-root")
    await tell(system, one)
    await settled()
    assert boot.purged == ["a", "c"]
    assert receipts(system) == []
    boot.broken.clear()
    await tell(system, one)
    await settled()
    assert boot.purged == ["a", "c", "b"]
    assert len(receipts(system)) == 1


async def test_a_forged_hold_has_no_effect_and_is_recorded(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    await tell(system, one, held(one, "gw-eu-1"))
    boot.stream.store(place(one), held(one, "core-eu-2"))
    await settled()
    assert boot.purged == []
    assert not boot.revocations.killed("acme")
    assert boot.count("trust.refused") == 2, "each for its own reason"
    for _ in range(5):
        boot.stream.store(place(one), held(one, "core-eu-2"))
        await settled()
    await boot.close()
    told = [fields["count"] for kind, fields in boot.events if kind == "trust.refused"]
    assert told == [1, 1, 5], "what was only counted is on record before the end"


# Fences and proofs


async def with_mark(system, name="gw-eu-1"):
    boot = system.boot(name)
    await boot.start()
    return boot, await boot.switch.caught_up()


def fence(mark, region="eu", other="us", highest=NOWHERE, roster=1):
    return Fence(
        region=region,
        other=other,
        position=mark.sequence,
        nonce=mark.nonce,
        stored=highest.sequence,
        hold=highest.nonce,
        roster=roster,
    )


def fence_entry(boot, statement, signer):
    subject = subjects.control_fence("eu", statement.other)
    return boot.stream.store(subject, signed(Kind.FENCE, statement, signer))


async def test_a_fence_of_a_core_of_the_region_is_believed(system):
    boot, mark = await with_mark(system)
    heard = []
    boot.switch.listen(heard.append, heard.append)
    fence_entry(boot, fence(mark), "core-eu-1")
    await settled()
    assert boot.knowledge.knows("us")
    assert heard == [fence(mark)]


@pytest.mark.parametrize(
    ("signer", "region"),
    [("gw-eu-1", "eu"), ("core-us-1", "eu"), ("core-us-1", "us"), ("security", "eu")],
    ids=["a gateway", "a core of another region", "another region's fence", "an operator"],
)
async def test_a_fence_that_nobody_may_sign_is_ignored(system, signer, region):
    boot, mark = await with_mark(system)
    fence_entry(boot, fence(mark, region, "us" if region == "eu" else "ap"), signer)
    await settled()
    assert not boot.knowledge.knows("us")
    assert not boot.knowledge.knows("ap")
    assert boot.count("trust.refused") == 1


async def test_a_fence_of_a_region_with_a_higher_roster_is_not_believed(system):
    """What holds there may be lifted by the roster that counts here."""
    boot, mark = await with_mark(system)
    fence_entry(boot, fence(mark, roster=boot.me.rosters.version + 1), "core-eu-1")
    await settled()
    assert not boot.knowledge.knows("us")
    assert boot.count("trust.refused") == 0


async def test_a_fence_with_a_mark_of_another_history_is_not_believed(system):
    boot, mark = await with_mark(system)
    stranger = type(mark)(mark.sequence, b"n" * 16)
    fence_entry(boot, fence(stranger), "core-eu-1")
    await settled()
    assert not boot.knowledge.knows("us")


async def test_a_fence_of_before_a_rollback_that_arrives_late_says_nothing(system):
    boot, mark = await with_mark(system)
    boot.stream.recreate()
    for number in range(mark.sequence):
        boot.stream.store(f"kcm.v1.eu.control.lease.filler.{number:032x}", b"filler")
    await until(boot.live)
    await until(lambda: boot.follower.position > mark.sequence)
    fence_entry(boot, fence(mark), "core-eu-1")
    await settled()
    assert not boot.knowledge.knows("us")


async def test_a_fence_that_is_repeated_does_not_put_off_the_next_question(system):
    """A consumer that is made anew again and again delivers the same fence every time."""
    core = system.core("core-eu-1")
    other = system.core("core-us-1")
    await other.start(watch=False)
    await core.start(watch=False)
    await until(lambda: core.knowledge.knows("us"))
    subject = subjects.control_fence("eu", "us")
    old = core.stream.entries[subject].data
    asked = []
    system.wire.loses = lambda sender, _, about: bool(
        asked.append(sender)
        if sender == "core-eu-1" and about == subjects.pull("us", "eu")
        else None
    )
    for _ in range(20):
        core.switch.receive(Entry(core.follower.position, subject, old))
        await let_pass(1)
    assert len(asked) >= 5


def proof(mark, state=L1State.ENABLED, region="eu"):
    return Proof(
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
    raw = signed(Kind.PROOF, proof(mark, region=region), signer)
    core.stream.store(subjects.control_proof("eu", "acme-root", bytes(32)), raw)
    await settled()
    assert core.knowledge.proofs._positions == {}
    assert core.count("trust.refused") == 1


async def test_waiting_for_other_regions_ends_when_they_are_heard_retired_or_too_slow(system):
    boot, mark = await with_mark(system)
    waiting = asyncio.create_task(boot.switch.heard_regions(1_000))
    fence_entry(boot, fence(mark), "core-eu-1")
    await let_pass(1)
    assert not waiting.done()
    boot.switch.learning.learn(held(hold(scope="region", target="ap")))
    await asyncio.wait_for(waiting, 1)
    system.streams["eu"].recreate()
    await until(lambda: not boot.knowledge.knows("us"))
    await asyncio.wait_for(boot.switch.heard_regions(0.5), 2)
