"""Pulls and peer leases between regions: a peer lease says no more than what is stored here."""

import asyncio

import pytest
from kcm_killswitch.coordinator.pull_answers import PAGE_BYTES
from kcm_killswitch.coordinator.region_knowledge import FIRST
from kcm_killswitch.coordinator.region_sync import PAGES_MAX, SLICE
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import PullReply
from kcm_schemas.signed import Kind
from kcm_trust.statements import lift

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.statements import LINK, VERIFIER, at, held, hold, lifted, signed, tenant
from tests.vectors.families.messages import identity


def peer_leases(stream, other="us"):
    return [e for e in stream.history if e.subject == subjects.control_peer_lease("eu", other)]


def no_broadcasts(system):
    system.wire.loses = lambda _sender, _receiver, subject: ".hold." in subject


async def answering(system, region, answer):
    """Plays the Cores of a region: ``answer(request)`` gives the fields of a reply."""
    member = system.wire.join(f"fake-{region}")

    async def on_pull(message):
        request = VERIFIER.pull(message.data)
        fields = {
            "region": region, "nonce": request.nonce, "roster": 1, "same": False, "more": False,
            "position": 9, "durable_at": 0, "held_ms": 0, "watched_ms": 0,
            "reached": bytes(32), "settled": True, "lifted": False, "holds": [], "incarnations": [],
        }  # fmt: skip
        fields |= answer(request) or {}
        signer = fields.pop("signer", f"core-{region}-1")
        reply = signed(Kind.PULL_REPLY, PullReply(**fields), signer)
        await member.publish(message.reply, reply)

    await member.subscribe(subjects.pulls(region), on_pull, queue=f"core-{region}")


async def test_a_region_learns_from_another_what_every_broadcast_lost(system):
    no_broadcasts(system)
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    one = hold(origin="us")
    await us.start(watch=False)
    us.switch.learn(held(one))
    await eu.start(watch=False)
    assert eu.revocations.killed("acme")
    await until(lambda: at(one) in eu.stream.entries)
    await until(lambda: eu.freshness.knows("us") and us.freshness.knows("eu"))


async def test_there_is_no_peer_lease_before_everything_learned_is_durable_here(system):
    one = hold(origin="us")
    await answering(system, "us", lambda _: {"holds": [held(one, "security")]})
    eu = system.core("core-eu-1")
    stuck = True

    async def no_holds(operation, subject):
        if stuck and operation == "put" and ".hold." in subject:
            raise KcmError(Code.UNAVAILABLE)

    eu.log.before = no_holds
    await eu.start(watch=False)
    await let_pass(20)
    assert eu.revocations.killed("acme")
    assert peer_leases(eu.stream) == []
    stuck = False
    await until(lambda: peer_leases(eu.stream))
    stored = eu.stream.entries[at(one)].sequence
    assert all(stored < peer_lease.sequence for peer_lease in peer_leases(eu.stream))


async def test_others_have_their_turn_while_thousands_of_holds_are_learned(system):
    """After a partition; those that still kill are learned first."""
    known = [hold(origin="us", target=f"t{n}") for n in range(300)]
    raws = [lifted(one) if n % 3 else held(one) for n, one in enumerate(known)]
    await answering(system, "us", lambda _: {"holds": raws})
    eu = system.core("core-eu-1")
    learned, spans = [], [0]
    learn = eu.switch.holds.applier.learn

    def counted(raw):
        spans[-1] += 1
        asyncio.get_running_loop().call_soon(spans.append, 0)  # somebody else has a turn
        learned.append(learn(raw))
        return learned[-1]

    eu.switch.holds.applier.learn = counted
    await eu.start(watch=False)
    assert len(eu.revocations.holds) == len(known)
    assert max(spans) <= SLICE
    first = learned[: len(known) // 3]
    assert not any(record.lifted for record in first)
    assert {record.hold.target for record in first} <= set(eu.purged)


async def test_what_both_regions_know_does_not_travel_again(system):
    no_broadcasts(system)
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    known = [hold(origin="us", target=f"t{n}") for n in range(200)]
    for one in known:
        eu.switch.learn(lifted(one))
        us.switch.learn(lifted(one))
    new = hold(origin="us")
    us.switch.learn(held(new))
    await us.start(watch=False)
    await eu.start(watch=False)
    assert eu.revocations.killed("acme")
    await eu.kills.status(new.id)
    replies = [VERIFIER.pull_reply(m.data) for m in system.wire.sent if "_INBOX" in m.subject]
    from_us = [one.holds for one in replies if one.region == "us"]
    of_its_part = [one for one in [*known, new] if one.id[0] == new.id[0]]
    assert max(map(len, from_us)) == len(of_its_part)


async def test_two_signatures_of_one_lift_are_no_difference(system):
    no_broadcasts(system)
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    one = hold(origin="us")
    for core, signer in ((eu, "security"), (us, "security-2")):
        core.switch.learn(lift(identity(signer), held(one), issued_ms=9, reason="over"))
    assert eu.revocations.holds != us.revocations.holds
    assert eu.revocations.holds.digest == us.revocations.holds.digest
    await us.start(watch=False)
    await eu.start(watch=False)
    await until(lambda: eu.switch.durable_at(one.id) and us.switch.durable_at(one.id))
    status = await eu.kills.status(one.id)
    assert status.lifted
    assert all(region.durable_at for region in status.regions if region.region != "ap")


async def test_a_peer_lease_names_a_log_position_from_before_the_question(system):
    asked = []
    eu = system.core("core-eu-1")

    def answer(_):
        asked.append(eu.freshness.position)

    await answering(system, "us", answer)
    await eu.start(watch=False)
    await until(lambda: peer_leases(eu.stream))
    peer_lease = VERIFIER.peer_lease(peer_leases(eu.stream)[0].data)
    assert peer_lease.position <= asked[0].sequence


@pytest.mark.parametrize("what", ["forged hold", "forged reply", "other nonce", "other region"])
async def test_there_is_no_peer_lease_after_anything_that_is_not_believed(system, what):
    good, forged = hold(origin="us", target="good"), hold(origin="us", target="forged")
    raws = {"forged hold": [held(good), held(forged, "gw-us-1")]}

    def answer(request):
        return {
            "forged hold": {"holds": raws["forged hold"]},
            "forged reply": {"signer": "gw-us-1"},
            "other nonce": {"nonce": bytes(16)},
            "other region": {"region": "ap", "signer": "core-ap-1"},
        }[what]

    await answering(system, "us", answer)
    eu = system.core("core-eu-1")
    await eu.start(watch=False)
    await let_pass(10)
    assert peer_leases(eu.stream) == []
    assert not eu.freshness.knows("us")
    assert eu.revocations.killed("good") == (what == "forged hold")
    assert not eu.revocations.killed("forged")


async def test_there_is_no_peer_lease_after_a_pull_that_broke_off(system):
    def answer(request):
        if request.after == FIRST:
            return {"holds": [held(hold(origin="us"))], "more": True}
        raise ValueError("the second page is lost")

    await answering(system, "us", answer)
    eu = system.core("core-eu-1")
    await eu.start(watch=False)
    await let_pass(10)
    assert eu.revocations.killed("acme")
    assert peer_leases(eu.stream) == []


async def test_a_region_that_promises_more_for_ever_gets_no_peer_lease(system):
    await answering(system, "us", lambda _: {"more": True})
    eu = system.core("core-eu-1")
    await eu.start(watch=False)  # asks once
    assert peer_leases(eu.stream) == []
    asked = [m for m in system.wire.sent if m.subject == subjects.pull("us", "eu")]
    assert len(asked) <= PAGES_MAX


async def test_holds_come_in_several_pages_by_cursor(system):
    no_broadcasts(system)
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    await us.start(watch=False)
    reason = "x" * 2048
    many = [hold(origin="us", target=f"t{n}", reason=reason) for n in range(400)]
    for one in many:
        us.switch.learn(held(one))
    assert sum(len(held(one)) for one in many) > 2 * PAGE_BYTES
    await eu.start(watch=False)
    assert {record.hold.id for record in eu.revocations.holds} == {one.id for one in many}
    asked = [
        VERIFIER.pull(m.data).after
        for m in system.wire.sent
        if m.subject == subjects.pull("us", "eu") and VERIFIER.pull(m.data).region == "eu"
    ]
    pages = [after for after in asked if after != FIRST]
    assert len(pages) >= 2
    assert pages == sorted(pages)


async def test_regions_that_hold_the_same_send_no_holds(system):
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    await us.start(watch=False)
    await eu.start(watch=False)
    eu.switch.learn(held(hold()))
    await eu.switch.broadcast(eu.switch.verify(held(hold(target="other"))))
    await until(lambda: len(us.revocations.holds) == 1)
    await let_pass(10)
    assert eu.revocations.holds.digest == us.revocations.holds.digest
    system.wire.sent.clear()
    await let_pass(10)
    replies = [
        VERIFIER.pull_reply(m.data) for m in system.wire.sent if m.subject.startswith("_INBOX")
    ]
    assert replies
    assert all(one.same and not one.holds for one in replies)


async def test_the_cores_of_a_region_share_their_questions(system):
    cores = [system.core(f"core-eu-{n}", chance=lambda n=n: n / 4) for n in (1, 2, 3)]
    us = system.core("core-us-1")
    await us.start(watch=False)
    await asyncio.gather(*(core.start(watch=False) for core in cores))
    await let_pass(5)
    system.wire.sent.clear()
    rounds = 20
    await let_pass(rounds * system.timing.pull_every_s)
    asked = [
        m for m in system.wire.sent
        if m.subject == subjects.pull("us", "eu") and VERIFIER.pull(m.data).region == "eu"
    ]  # fmt: skip
    assert rounds / 2 <= len(asked) <= rounds * 2
    assert all(core.freshness.knows("us") for core in cores)


async def test_a_region_that_is_cut_off_lets_the_tenants_of_both_go_dark_and_comes_back(system):
    record = tenant(regions=["eu", "us"], region_quorum="all")
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    for core in (eu, us):
        core.learn(record)
    await us.start(watch=False)
    await eu.start(watch=False)
    await until(lambda: eu.freshness.knows("us"))
    eu.admission.admit("acme", eu.clock.elapsed())
    us.bus.connected = False
    await let_pass(system.timing.partition_grace_s + system.timing.renew_every_s)
    with pytest.raises(KcmError) as caught:
        eu.admission.admit("acme", eu.clock.elapsed())
    assert caught.value.code is Code.UNAVAILABLE
    us.bus.connected = True

    def serves():
        try:
            return eu.admission.admit("acme", eu.clock.elapsed())
        except KcmError:
            return None

    await until(serves, 10)


async def test_nobody_asks_a_region_that_is_retired(system):
    eu = system.core("core-eu-1")
    eu.learn(tenant(regions=["eu", "us"]))
    for region in ("us", "ap"):
        eu.switch.learn(held(hold(scope="region", target=region)))
    await eu.start(watch=False)
    await let_pass(10)
    assert not [m for m in system.wire.sent if ".pull." in m.subject]
    eu.admission.admit("acme", eu.clock.elapsed())


async def test_a_lift_is_pulled_as_a_hold_is(system):
    no_broadcasts(system)
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    one = hold()
    await us.start(watch=False)
    await eu.start(watch=False)
    eu.switch.learn(held(one))
    await until(lambda: us.revocations.killed("acme"), 20)
    us.switch.learn(lifted(one))
    await until(lambda: not eu.revocations.killed("acme"), 20)
    await until(lambda: eu.stream.entries[at(one)].data == lifted(one))


async def test_kills_that_come_all_the_time_end_no_peer_leases_of_other_tenants(system):
    """Somebody kills thousands of tenants, one after the other; some are always on their way."""
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    eu.learn(LINK.model_copy(update={"model": "hyok"}))
    eu.learn(tenant("other", regions=["eu", "us"], region_quorum="all"), tenant(regions=["eu"]))

    async def slow(operation, subject):
        if operation == "put" and ".hold." in subject:
            await asyncio.sleep(0.2)

    eu.log.before = us.log.before = slow
    await us.start(watch=False)
    await eu.start(watch=False)
    end = eu.clock.elapsed() + system.timing.hyok_grace_s + 5
    while eu.clock.elapsed() < end:
        eu.switch.learn(held(hold(target="acme")))
        await let_pass(0.15)
        assert not eu.switch.all_durable
    eu.admission.admit("other", eu.clock.elapsed())
