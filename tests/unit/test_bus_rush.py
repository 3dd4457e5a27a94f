"""What a kill makes everybody do at once is as little as can be, and in the right order."""

from __future__ import annotations

import pytest
from kcm_killswitch.replica.hold_applier import HoldApplier
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from tests.unit.rush_rig import HELD, HOLD, PLACE, Counting, Switch, host, with_tenant
from tests.unit.trust_rig import lift, roster
from tests.vectors.families.messages import identity

LIFTED = encode(identity("security").sign(Kind.LIFT, lift(HOLD, "security")))


@pytest.fixture
def state():
    return with_tenant()


@pytest.fixture
def verifier():
    return Counting(roster())


@pytest.fixture
def switch(state, verifier):
    return Switch(state, verifier)


def learning(state, verifier, changed=lambda _: None):
    return HoldApplier(host(verifier), state, purge=lambda _: 1, changed=changed)


def test_a_statement_is_verified_once_however_often_it_comes(state, verifier):
    learns = learning(state, verifier)
    first = learns.learn(HELD)
    assert learns.learn(HELD) == first
    assert learns.learn(bytes(bytearray(HELD))) == first
    assert verifier.asked == 1


def test_a_hold_that_is_told_again_purges_whom_it_reaches_by_now_while_it_is_in_force(
    state, verifier
):
    """And no operation that began before has an output: each purge begins a generation."""
    revocations, purged = state.revocations, []
    learns = HoldApplier(
        host(verifier),
        state,
        purge=lambda name: purged.append(name) or 1,
        changed=lambda _: None,
    )
    learns.learn(HELD)
    for revision, statement, expected in ((2, HELD, ["acme"]), (3, LIFTED, []), (4, HELD, [])):
        tenant = Tenant(
            tenant="acme", revision=revision, link="m", regions=["eu"], region_quorum="local"
        )
        revocations.register(tenant)
        purged.clear()
        before = revocations.generation("acme")
        learns.learn(statement)
        assert purged == expected
        assert revocations.generation("acme") == before + len(expected)


def test_a_statement_that_differs_in_a_bit_is_verified_and_not_believed(state, verifier):
    learns = learning(state, verifier)
    learns.learn(HELD)
    forged = bytearray(HELD)
    forged[-1] ^= 1
    with pytest.raises(Untrusted):
        learns.learn(bytes(forged))
    assert verifier.asked == 2


def test_of_every_hold_one_statement_is_remembered(state, verifier):
    learns = learning(state, verifier)
    for raw in (HELD, LIFTED, HELD, LIFTED):
        record = learns.learn(raw)
    assert record.lifted
    assert learns.believes(LIFTED)
    assert not learns.believes(HELD)


def test_the_receipt_is_there_when_others_are_told_of_the_change(state, verifier):
    found = []
    learns = learning(state, verifier, lambda one: found.append(learns.receipt(one)))
    learns.learn(HELD)
    assert found[0].hold_id == HOLD.id


async def test_the_receipt_goes_before_anything_is_stored(switch):
    before = []

    async def publish(subject, body, reply=""):
        before.append((subject, switch.log.reads, dict(switch.log.stored)))

    switch.bus.publish = publish
    await switch.hear()
    await switch.settled()
    assert before == [(subjects.receipt("eu", HOLD.id), 0, {})]
    assert switch.events[0] == "purge"
    assert switch.log.stored[PLACE].data == HELD


async def test_a_hold_that_the_stream_has_by_then_is_not_written_again(switch):
    await switch.hear()
    switch.read(at=7)
    await switch.settled()
    assert switch.log.reads == 0
    assert switch.log.stored == {}
    assert switch.made.durable_at(HOLD.id) == 7


async def test_the_stream_asks_for_no_second_receipt_but_a_broadcast_does(switch):
    await switch.hear()
    await switch.settled()
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1
    await switch.hear()
    await switch.settled()
    assert len(switch.receipts()) == 2


async def test_who_learns_from_the_stream_alone_sends_a_receipt(switch):
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1


async def test_a_receipt_that_could_not_be_sent_is_sent_when_the_stream_has_the_hold(switch):
    async def fail(subject, body, reply=""):
        raise KcmError(Code.UNAVAILABLE)

    working, switch.bus.publish = switch.bus.publish, fail
    await switch.hear()
    await switch.settled()
    switch.bus.publish = working
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1
