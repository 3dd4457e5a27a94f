"""Which statements are refused on record when a roster retires their signers."""

import asyncio

import pytest
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects

from tests.fakes.virtual import settled, until
from tests.unit.switch.roster_rig import (
    FIRST,
    rosters,
    signed,
    stored,
    without,
)
from tests.unit.switch.roster_steps import refused


async def test_an_honest_retirement_is_no_event_for_who_runs_and_who_begins(system, incarnation):
    other = system.incarnation("core-eu-2", rosters=rosters())
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    await asyncio.gather(incarnation.start(), other.start(), gateway.start())
    await until(lambda: stored(incarnation) == signed(FIRST))
    new = signed(without("core-eu-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and gateway.me.rosters.version == 2)
    await settled()
    # What it wrote while it acted, and what it wrote before it heard, is still there.
    place = subjects.control_lease("eu", "core-eu-2", other.me.incarnation)
    incarnation.stream.entries[place] = Entry(
        incarnation.stream.sequence, place, incarnation.stream.entries[place].data
    )
    late = system.incarnation("core-eu-1", rosters=rosters())
    late.me.rosters.take(new)
    await late.start()
    await settled()
    assert [refused(one) for one in (incarnation, gateway, late)] == [[], [], []]


async def test_who_has_a_newer_roster_than_the_stream_is_refused_nothing(incarnation):
    incarnation.stream.store(subjects.control_roster("eu"), signed(FIRST))
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await incarnation.start()
    await until(lambda: stored(incarnation) == new)
    assert refused(incarnation) == []


async def test_what_somebody_retired_writes_later_is_refused_by_name(system, incarnation):
    other = system.incarnation("core-eu-2", rosters=rosters())
    await asyncio.gather(incarnation.start(), other.start())
    new = signed(without("core-eu-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new)
    await settled()
    place = subjects.control_lease("eu", "core-eu-2", other.me.incarnation)
    incarnation.stream.store(place, incarnation.stream.entries[place].data)
    await until(lambda: refused(incarnation) == ["control: the signer core-eu-2 is retired"])


@pytest.mark.parametrize("way", ["written over", "set back"])
async def test_a_stream_that_steps_back_behind_a_roster_is_told(incarnation, way):
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))
    before = incarnation.stream.snapshot()
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and incarnation.switch.rosters.stored)
    if way == "set back":
        incarnation.stream.go_back(before)
    else:
        incarnation.stream.store(subjects.control_roster("eu"), signed(FIRST))
    await until(lambda: stored(incarnation) == new)
    assert refused(incarnation) == ["control: the roster is older than one seen before"]
