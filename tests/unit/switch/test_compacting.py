"""A Core puts what its region's keys caused into pages, and operators do it with the rest."""

import asyncio

import pytest
from kcm_killswitch.coordinator.lift_compaction import SAME_S, LiftCompaction
from kcm_schemas import limits
from kcm_trust.statements import lift

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.page_rig import data, page, page_at
from tests.unit.switch.statements import at, held, hold
from tests.vectors.families.messages import identity

KEEP_S = 100.0


def compaction(core, **changes):
    options = {"keep_s": KEEP_S, "least": 2} | changes
    return LiftCompaction(
        core.host,
        core.state,
        switch=core.switch,
        regions=core.regions,
        **options,
    )


def of_key(origin="eu"):
    return hold(scope="link", target="acme-root", cause="l1", origin=origin)


def ended(one, at_ms, by="core-eu-1"):
    raw = held(one, f"core-{one.origin}-1" if one.cause == "l1" else "security")
    return lift(identity(by), raw, issued_ms=at_ms, reason="over")


@pytest.fixture
async def cores(system):
    every = [system.core(f"core-{region}-1") for region in ("eu", "us", "ap")]
    await asyncio.gather(*(core.start(watch=False) for core in every))
    return every[:2]


async def test_a_core_pages_what_ended_long_ago_of_its_own_keys(cores):
    eu, us = cores
    now = eu.clock.unix_ms()
    old, others, operators, young = (
        [of_key(), of_key()], [of_key("us")], [hold()], [of_key()]
    )  # fmt: skip
    for one in old + operators:
        eu.switch.learn(ended(one, now, "core-eu-1" if one.cause == "l1" else "security"))
    eu.switch.learn(ended(others[0], now, "core-us-1"))
    await let_pass(KEEP_S + 20)
    eu.switch.learn(ended(young[0], eu.clock.unix_ms()))
    await let_pass(20)
    digest = eu.revocations.holds.digest
    assert await compaction(eu).compact() == len(old)
    assert eu.revocations.holds.paged_count == len(old)
    assert {one.hold.id for one in eu.revocations.holds} == {
        one.id for one in others + operators + young
    }
    assert eu.count("hold.compacted") == 1
    await until(lambda: us.revocations.holds.paged_count == len(old))
    assert digest == eu.revocations.holds.digest == us.revocations.holds.digest
    for one in old:
        await until(lambda one=one: data(eu, at(one)) == b"")
    assert await compaction(eu).compact() == 0


async def test_what_another_region_does_not_know_yet_is_not_paged(cores):
    eu, us = cores
    for _ in range(2):
        eu.switch.learn(ended(of_key(), eu.clock.unix_ms()))
    await let_pass(KEEP_S + 20)
    us.bus.connected = False
    await let_pass(SAME_S + 60)
    assert await compaction(eu).compact() == 0
    us.bus.connected = True
    await let_pass(60)
    assert await compaction(eu).compact() == 2


async def test_a_few_wait_until_there_are_more(cores):
    eu, _ = cores
    eu.switch.learn(ended(of_key(), eu.clock.unix_ms()))
    await let_pass(KEEP_S + 20)
    assert await compaction(eu).compact() == 0
    assert await compaction(eu, least=1).compact() == 1


async def test_it_looks_again_after_an_outage(cores):
    eu, _ = cores
    eu.switch.learn(ended(of_key(), eu.clock.unix_ms()))
    work = compaction(eu, least=1, every_s=50.0)
    work.start()
    await let_pass(KEEP_S)
    eu.log.connected = False
    await let_pass(120)
    assert eu.revocations.holds.paged_count == 0
    eu.log.connected = True
    await until(lambda: eu.revocations.holds.paged_count == 1, within_s=300)
    work.close()


async def test_a_core_without_its_disk_begins_with_the_page_in_the_stream(system, cores):
    eu, _ = cores
    one, other = of_key(), of_key()
    while other.id[0] != one.id[0]:
        other = of_key()
    eu.stream.store(page_at("core-eu-1", "l1", one.id[0]), page([one]))
    await until(lambda: eu.revocations.holds.paged_count == 1)
    eu.switch.learn(ended(other, eu.clock.unix_ms()))
    await let_pass(KEEP_S + 20)
    # This incarnation was never delivered the page: it knows of none.
    for known in list(eu.switch.lift_pages):
        eu.switch.lift_pages.drop(known)
    assert await compaction(eu, least=1).compact() == 1
    place = ("l1", "eu", "core-eu-1", one.id[0])
    stored = eu.switch.lift_pages.own(type(next(iter(eu.switch.lift_pages)).place)(*place))
    assert stored == b"".join(sorted([one.id, other.id]))


async def test_a_full_page_takes_no_more_and_somebody_is_warned(cores, monkeypatch, caplog):
    monkeypatch.setattr(limits, "LIFTS_MAX", 1)
    eu, _ = cores
    one, other = of_key(), of_key()
    while other.id[0] != one.id[0]:
        other = of_key()
    for each in (one, other):
        eu.switch.learn(ended(each, eu.clock.unix_ms()))
    await let_pass(KEEP_S + 20)
    assert await compaction(eu, least=1).compact() == 1
    assert await compaction(eu, least=1).compact() == 0
    assert "nearly full" in caplog.text
