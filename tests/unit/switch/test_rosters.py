"""A new roster is taken over while everything runs, and everybody judges anew at once."""

import asyncio

import pytest
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity

from tests.fakes.virtual import settled, until
from tests.unit.switch.roster_rig import (
    FIRST,
    listing,
    removed,
    rosters,
    signed,
    stored,
    without,
)
from tests.unit.switch.statements import held, hold, lifted
from tests.vectors.families.messages import private_key


async def test_a_core_puts_the_roster_into_the_stream(incarnation):
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))


async def test_an_instance_takes_over_what_a_core_has(system, incarnation):
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.me.rosters.take(signed(without("security-2")))
    await until(lambda: gateway.me.rosters.version == 2)
    assert stored(incarnation) == signed(without("security-2"))
    assert gateway.live()
    assert incarnation.live()
    assert gateway.count("roster.taken") == 1


@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 9, held(hold()), signed(FIRST)])
async def test_what_somebody_puts_in_its_place_is_replaced(incarnation, rubbish):
    await incarnation.start()
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new)
    incarnation.stream.store(subjects.control_roster("eu"), rubbish)
    await until(lambda: stored(incarnation) == new)
    assert incarnation.me.rosters.version == 2


async def test_a_stream_that_lost_the_roster_gets_it_and_the_lists_again(incarnation):
    one = hold()
    endorsements = listing(lifted(one, "security-2"))
    new = signed(without("security-2", endorsements))
    page = subjects.control_endorsements("eu", "security-2", 0)
    await incarnation.start()
    incarnation.switch.rosters.stage("security-2", 0, endorsements.raw())
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and page in incarnation.stream.entries)
    incarnation.stream.recreate()
    assert stored(incarnation) is None
    await until(lambda: stored(incarnation) == new and page in incarnation.stream.entries)


async def test_an_incarnation_reads_the_roster_before_anything_else(system, incarnation):
    """A hold by somebody who is new on it lies at a lower place in the stream."""
    one = hold()
    incarnation.stream.store(subjects.control_hold("eu", "tenant", one.id), held(one, "security-2"))
    incarnation.stream.store(
        subjects.control_roster("eu"), signed(FIRST.model_copy(update={"version": 2}))
    )
    older = removed("security-2").model_copy(update={"version": 1})
    late = system.incarnation("gw-eu-1", rosters=rosters(older))
    await late.start()
    assert late.revocations.killed("acme")


async def test_a_core_that_cannot_take_a_higher_roster_does_not_write_over_it(incarnation):
    """Who begins meanwhile would read the one of before."""
    await incarnation.start()
    left = signed(without("security-2"))
    incarnation.me.rosters.take(left)
    await until(lambda: stored(incarnation) == left)
    back = signed(FIRST.model_copy(update={"version": 3}))
    incarnation.stream.store(subjects.control_roster("eu"), back)
    await settled()
    assert incarnation.me.rosters.version == 2
    assert stored(incarnation) == back


async def test_a_roster_of_another_system_of_the_same_root_is_written_over(incarnation):
    other = FIRST.model_copy(update={"version": 9, "system": "staging"})
    key = Identity(ROOT, private_key(ROOT), "staging")
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))
    foreign = encode(key.sign(Kind.ROSTER, other))
    incarnation.stream.store(subjects.control_roster("eu"), foreign)
    assert incarnation.me.rosters.outbid_by(foreign) == 0
    await until(lambda: stored(incarnation) == signed(FIRST))
    assert incarnation.switch.rosters.highest == FIRST.version
