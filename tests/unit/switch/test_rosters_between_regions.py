"""Regions with different rosters: no peer lease, and no durable hold, between them."""

import asyncio

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.roster_rig import (
    FIRST,
    rosters,
    signed,
    stored,
    without,
)
from tests.unit.switch.statements import held, hold

# Between regions


def has_peer_lease(incarnation, other):
    return any(
        e.subject == subjects.control_peer_lease("eu", other) for e in incarnation.stream.history
    )


async def test_a_region_with_a_higher_roster_gets_no_peer_lease_until_it_is_here(system):
    """By the roster that counts there a hold is in force that this region takes for lifted."""
    eu, us = (system.core(f"core-{region}-1", rosters=rosters()) for region in ("eu", "us"))
    next_one = signed(without("security-2"))
    us.me.rosters.take(next_one)
    await us.start(watch=False)
    await eu.start(watch=False)
    await until(lambda: us.freshness.knows("eu"))
    await let_pass(20)
    assert not has_peer_lease(eu, "us")
    assert not eu.freshness.knows("us")
    assert eu.count("roster.behind") == 1
    eu.me.rosters.take(next_one)
    await until(lambda: eu.freshness.knows("us"))


async def test_a_region_that_judges_by_a_lower_roster_has_no_hold_durable(system):
    """It may take the hold for lifted tomorrow, when it hears of a lift that counts there."""
    eu, us = (system.core(f"core-{region}-1", rosters=rosters()) for region in ("eu", "us"))
    await us.start(watch=False)
    await eu.start(watch=False)
    one = hold()
    eu.switch.learn(held(one))

    async def durable_in_us() -> bool:
        regions = (await eu.kills.status(one.id)).regions
        return any(said.durable_at for said in regions if said.region == "us")

    await until(lambda: us.switch.durable_at(one.id))
    assert await durable_in_us()
    eu.me.rosters.take(signed(without("security-2")))
    assert not await durable_in_us()
    us.me.rosters.take(eu.me.rosters.raw)
    await until(lambda: us.switch.rosters.stored)
    assert await durable_in_us()


async def test_a_higher_roster_in_the_stream_counts_between_regions_though_it_must_not_follow(
    system,
):
    """Other Cores of the region may have it: who asks hears of the highest."""
    eu, us = (system.core(f"core-{region}-1", rosters=rosters()) for region in ("eu", "us"))
    us.me.rosters.take(signed(without("security-2")))
    strange = signed(FIRST.model_copy(update={"version": 3}))  # who left is there once more
    us.stream.store(subjects.control_roster("us"), strange)
    await us.start(watch=False)
    assert us.me.rosters.version == 2
    assert us.switch.rosters.highest == 3
    eu.me.rosters.take(signed(without("security-2")))
    await eu.start(watch=False)
    await let_pass(20)
    assert not eu.freshness.knows("us")


async def test_a_hold_counts_between_regions_from_when_the_stream_has_its_roster(incarnation):
    """Before that, another Core of the region may have said that it is lifted."""
    one = hold()
    await incarnation.start()
    incarnation.switch.learn(held(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    await let_pass(60)
    assert (await incarnation.switch.facts(one.id))[1].since_s >= 50
    slow, put = asyncio.Event(), incarnation.log.before

    async def no_rosters(operation: str, subject: str) -> None:
        if operation == "put" and subject == subjects.control_roster("eu") and not slow.is_set():
            raise KcmError(Code.UNAVAILABLE)

    incarnation.log.before = no_rosters
    incarnation.me.rosters.take(signed(without("security-2")))
    await let_pass(5)
    assert (await incarnation.switch.facts(one.id))[1].durable_at == 0
    slow.set()
    await until(lambda: stored(incarnation) == incarnation.me.rosters.raw)
    await settled()
    facts = (await incarnation.switch.facts(one.id))[1]
    assert facts.durable_at > 0
    assert facts.since_s < 50
    incarnation.log.before = put


async def test_a_core_that_is_retired_ends_its_exchange_with_other_regions(system, caplog):
    """It cannot write its lease entry any more, and other regions would refuse its questions."""
    eu = system.core("core-eu-1", rosters=rosters())
    await eu.start(watch=False)
    await let_pass(5)
    eu.me.rosters.take(signed(without("core-eu-1")))
    await let_pass(5)
    caplog.clear()
    await let_pass(30)
    assert "exchange" not in caplog.text
