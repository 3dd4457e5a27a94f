"""What a removed signer signed ends, and takes along nothing of others."""

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind
from kcm_trust.statements import lift
from kcm_trust.verify import Untrusted

from tests.unit.switch.roster_rig import (
    removed,
    rosters,
    signed,
    without,
)
from tests.unit.switch.statements import LINK, held, hold, lifted, tenant
from tests.vectors.families.messages import identity


def countersigned(one, *signers):
    """A hold that several have signed, as it is stored when each of them placed it."""
    first, *others = sorted(signers)
    statement = identity(first).sign(Kind.HOLD, one)
    for name in others:
        statement = identity(name).countersign(statement)
    return encode(statement)


@pytest.mark.parametrize("honest", ["security", "security-2"])
async def test_who_signs_a_kill_once_more_does_not_take_it_along(incarnation, honest):
    thief = "security" if honest == "security-2" else "security-2"
    one = hold()
    for name in (honest, thief):
        incarnation.switch.learn(held(one, name))
    assert incarnation.revocations.holds.get(one.id).raw == countersigned(one, honest, thief)
    incarnation.me.rosters.take(signed(removed(thief)))
    assert incarnation.revocations.killed("acme")
    assert incarnation.revocations.holds.get(one.id).raw == held(one, honest)


async def test_a_kill_outlives_a_lift_and_the_form_in_it_by_somebody_removed(incarnation):
    one = hold()
    incarnation.switch.learn(held(one))
    incarnation.switch.learn(lifted(one, "security-2"))
    assert not incarnation.revocations.killed("acme")
    incarnation.me.rosters.take(signed(removed("security-2")))
    assert incarnation.revocations.killed("acme")


async def test_an_incarnation_that_begins_later_believes_who_is_left_of_the_signers(system):
    late = system.incarnation("gw-eu-1", rosters=rosters())
    late.learn(LINK, tenant())
    late.me.rosters.take(signed(removed("security-2")))
    one = hold()
    late.switch.learn(countersigned(one, "security", "security-2"))
    assert late.revocations.killed("acme")


async def test_a_judgement_of_before_the_removal_is_not_remembered(incarnation):
    """Two lift a hold, one form is kept. One is removed, the other one retires."""
    one = hold()
    incarnation.switch.learn(held(one))
    forms = [lifted(one), lift_of(one, "security-2")]
    for raw in sorted(forms):
        incarnation.switch.learn(raw)
    incarnation.me.rosters.take(signed(removed("security-2")))
    incarnation.me.rosters.take(signed(without("security", known=removed("security-2"))))
    assert incarnation.revocations.killed("acme")
    for raw in forms:
        incarnation_learns(incarnation, raw)
    assert incarnation.revocations.killed("acme")


def lift_of(one, signer):
    return lift(identity(signer), held(one), issued_ms=9, reason="over")


def incarnation_learns(incarnation, raw):
    try:
        incarnation.switch.learn(raw)
    except Untrusted:
        return
