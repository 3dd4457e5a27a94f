"""The kill switch against insiders, liars and faults: no purge is skipped, no kill looks complete.

Everything here is the production code over a stream in memory that does what a test says.
"""

import asyncio

import pytest
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.signed import Kind

from tests.fakes.bus import Message
from tests.security.switch_rig import Rig, acme, settle, signed
from tests.unit.trust_rig import hold, lift
from tests.vectors.families.messages import identity


async def until(condition):
    """Wait for what a Core does after it stood back."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the code under test has no event for it
            await asyncio.sleep(0.001)


# Purging


async def test_a_fault_with_one_tenant_spares_no_other_and_gives_no_receipt():
    """A receipt says that nothing is left. It must not be sent while something may be."""
    broken = {"b"}
    purged = []

    def purge(tenant):
        if tenant in broken:
            raise RuntimeError("a fault")
        purged.append(tenant)
        return 1

    rig = Rig(purge=purge)
    for name in ("a", "b", "c"):
        rig.revocations.register(
            Tenant(tenant=name, revision=1, link="l", regions=["eu"], region_quorum="all")
        )
    kill = hold(scope="link", target="l")
    await rig.switch.broadcasts.receive(Message(signed(kill)))
    await settle()
    assert purged == ["a", "c"]
    assert rig.receipts() == []
    assert all(rig.revocations.killed(name) for name in "abc")
    # It is tried again whenever the hold is heard again.
    broken.clear()
    await rig.switch.broadcasts.receive(Message(signed(kill)))
    await settle()
    assert purged == ["a", "c", "b"]
    assert [one.hold_id for one in rig.receipts()] == [kill.id]


async def test_the_purge_is_done_before_the_callback_waits_for_anything():
    rig = Rig()
    coroutine = rig.switch.broadcasts.receive(Message(signed(hold())))
    with pytest.raises(StopIteration):
        coroutine.send(None)  # it ends without having waited once
    assert rig.purged == ["acme"]
    await settle()


async def test_a_question_asked_a_thousand_times_at_once_has_one_answer():
    rig = Rig("gw-eu")
    for _ in range(1000):
        await rig.switch.broadcasts.receive(Message(signed(hold())))
    assert rig.switch.unsent == 1
    await settle()
    assert len(rig.receipts()) == 1


async def test_a_tenant_whose_record_changed_is_purged():
    rig = Rig()
    assert rig.revocations.register(acme()).purge == ()
    assert rig.revocations.register(acme(2, regions=["us"])).purge == ("acme",)
    assert rig.revocations.register(acme(3, regions=["us"], link="other")).purge == ("acme",)
    assert rig.revocations.register(acme(2)).purge == ()
    assert rig.revocations.register(Link(link="other", revision=1, uri="", model="byok")).purge == (
        "acme",
    )


# The region's stream


async def test_a_hold_that_is_overwritten_is_written_again():
    """An incarnation that starts later learns from the stream; so nothing else may stay there."""
    rig, kill = Rig(), hold()
    rig.switch.learn(signed(kill))
    await until(lambda: rig.stored(kill)[1] == signed(kill))
    subject = subjects.control_hold("eu", "tenant", kill.id)
    first = rig.stored(kill)
    assert first[1] == signed(kill)
    other = hold(target="another")
    for rubbish in (b"", b"\xff" * 40, signed(kill, "stranger"), signed(other)):
        rig.deliver(subject, rubbish)
        assert rig.switch.durable_at(kill.id) == 0
        await until(lambda: rig.switch.durable_at(kill.id))
        assert rig.stored(kill)[1] == signed(kill)
        assert rig.switch.durable_at(kill.id) == rig.stored(kill)[0]


async def test_a_stream_that_went_back_gets_every_hold_again():
    rig, kills_ = Rig(), [hold(target=f"t{n}") for n in range(5)]
    for kill in kills_:
        rig.switch.learn(signed(kill))
    await until(lambda: rig.switch.all_durable)
    rig.region.stream.stored.clear()
    rig.region.stream.sequence = 0
    rig.switch.reader.went_back()
    rig.switch.reader.resumed(0)
    assert all(rig.switch.durable_at(kill.id) == 0 for kill in kills_)
    await until(lambda: rig.switch.all_durable)
    assert {rig.stored(kill)[1] for kill in kills_} == {signed(kill) for kill in kills_}


async def test_a_hold_in_the_place_of_another_is_not_durable_there():
    rig, kill, other = Rig("gw-eu"), hold(), hold(target="another")
    rig.deliver(subjects.control_hold("eu", "tenant", other.id), signed(kill))
    assert rig.purged == ["acme"]  # it is a valid hold all the same
    assert rig.switch.durable_at(kill.id) == 0
    await settle()


async def test_a_gateway_writes_no_holds():
    rig, kill = Rig("gw-eu"), hold()
    rig.switch.learn(encode(identity("security").sign(Kind.LIFT, lift(kill, "security"))))
    rig.deliver(subjects.control_hold("eu", "tenant", kill.id), signed(kill))
    await settle()
    assert rig.stored(kill)[1] == signed(kill)
    assert not rig.revocations.killed("acme")
