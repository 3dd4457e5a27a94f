"""A finished kill is one and the same, also where its bucket fails, forgets or is set back."""

import asyncio

import pytest
from kcm_schemas import limits

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.results import NO_ROOM, Bucket, Failing, by, finished, started
from tests.unit.switch.rig import watched
from tests.unit.switch.statements import lifted


def words(status):
    """What stays: everything but why it is not stored."""
    return status.model_copy(update={"unstored": ""})


async def test_a_bucket_that_fails_once_is_tried_again_though_nobody_asks(system):
    core = await started(system, "core-eu-1")
    Failing(system, times=1)
    one, status = await finished(system, core)
    assert "could not be written" in status.unstored
    bucket = Bucket(system, one)
    await until(lambda: bucket.place in bucket.stream.stored)
    assert await core.kills.status(one.id) == words(status)


async def test_a_bucket_that_is_full_for_an_hour_has_the_result_when_there_is_room(system):
    core = await started(system, "core-eu-1")
    failing = Failing(system, error=NO_ROOM)
    one, status = await finished(system, core)
    assert "is full" in status.unstored
    await let_pass(3600)
    failing.times = 0
    bucket = Bucket(system, one)
    await until(lambda: bucket.place in bucket.stream.stored, 120)
    await core.close()
    core = await started(system, "core-eu-1")
    assert await core.kills.status(one.id) == words(status)


async def test_a_kill_that_is_lifted_before_it_was_stored_keeps_its_result(system):
    core = await started(system, "core-eu-1")
    failing = Failing(system)
    one, status = await finished(system, core)
    ended = await core.kills.place(lifted(one), core.clock.unix_ms() + 20_000)
    assert ended.lifted
    assert ended.unstored
    failing.times = 0
    bucket = Bucket(system, one)
    await until(lambda: bucket.place in bucket.stream.stored, 120)
    assert (await core.kills.status(one.id)).concluded == status.concluded


async def test_what_cannot_be_read_is_told_from_memory_and_says_so(system):
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    Failing(system).writes_only = False
    told = await core.kills.status(one.id)
    assert words(told) == status
    assert "could not be read" in told.unstored


@pytest.mark.parametrize("raw", [None, b"", b"\x00" * 4096])
async def test_who_remembers_fills_an_emptied_bucket_with_the_very_same(system, raw):
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    kept = bucket.content
    bucket.empty() if raw is None else bucket.put(raw)
    assert await core.kills.status(one.id) == status
    assert bucket.content == kept


async def test_two_cores_that_conclude_at_the_same_moment_tell_the_same(system):
    """Both read that nothing is there, and both write."""
    first = await started(system, "core-eu-1")
    other = await started(system, "core-eu-2")
    failing = Failing(system)
    one, _ = await finished(system, first)
    await until(lambda: first.results.reported.get(one.id))
    await other.kills.status(one.id)
    assert first.results.reported.get(one.id).result != other.results.reported.get(one.id).result
    both, ready = asyncio.Event(), []

    async def together(operation, subject):
        if operation == "put" and "result" in subject and not both.is_set():
            ready.append(subject)
            if len(ready) == 2:
                both.set()
            await both.wait()

    failing.times = 0
    bucket = Bucket(system, one)
    bucket.stream.before = together
    told = await asyncio.gather(*(core.kills.status(one.id) for core in (first, other)))
    assert len(ready) == 2
    assert bucket.stream.conflicts
    assert told[0] == told[1]
    assert told[0].unstored == ""
    for core in (first, other):
        assert await core.kills.status(one.id) == told[0]


async def test_what_was_told_and_never_stored_gives_way_to_what_is(system):
    first = await started(system, "core-eu-1")
    failing = Failing(system)
    one, unstored = await finished(system, first)
    first.kills.close()
    failing.times = 0
    other = await started(system, "core-eu-2")
    await watched(system)
    stored = await other.kills.status(one.id)
    assert stored.concluded != unstored.concluded
    assert await first.kills.status(one.id) == stored


async def test_of_two_that_were_stored_the_first_one_stays(system):
    """The bucket was set back, and somebody who did not know concluded anew."""
    first = await started(system, "core-eu-1")
    one, status = await finished(system, first)
    bucket = Bucket(system, one)
    bucket.empty()
    other = await started(system, "core-eu-2")
    await watched(system)
    anew = await other.kills.status(one.id)
    assert anew.concluded.instance == "core-eu-2"
    assert await first.kills.status(one.id) == status
    for core in (first, other):
        assert await core.kills.status(one.id) == status
    assert bucket.content.instance == "core-eu-1"


@pytest.mark.parametrize("ended", [False, True])
async def test_a_later_result_that_is_put_there_changes_no_word(system, ended):
    """Signed by a Core of the region that lost the race, and kept by the broker."""
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    if ended:
        status = await core.kills.place(lifted(one), core.clock.unix_ms() + 20_000)
        assert status.concluded is not None
    bucket = Bucket(system, one)
    later = {"instance": "core-eu-2", "concluded_ms": bucket.content.concluded_ms + 1}
    bucket.put(by(bucket.content.model_copy(update=later), "core-eu-2"))
    assert await core.kills.status(one.id) == status
    assert bucket.content.instance == "core-eu-1"


async def test_a_region_out_of_scope_keeps_its_words_when_the_roster_changes(system):
    """Its own place is in no result: where the hold lies in the others says that it is the same."""
    from tests.unit.switch.roster_rig import rosters, signed, without

    home = await started(system, "core-eu-1", regions=True, rosters=rosters())
    abroad = await started(system, "core-us-1", regions=True, rosters=rosters())
    one, status = await finished(system, home)
    await until(lambda: abroad.switch.durable_at(one.id))
    before = await abroad.kills.status(one.id)
    assert before.concluded == status.concluded
    for core in (home, abroad):
        core.me.rosters.take(signed(without("gw-ap-1")))
    await watched(system)
    for core in (home, abroad):
        after = await core.kills.status(one.id)
        assert (after.concluded, after.incarnations) == (status.concluded, status.incarnations)


async def test_a_kill_of_more_incarnations_than_a_result_has_room_for_is_complete_and_says_so(
    system, monkeypatch
):
    monkeypatch.setattr(limits, "RESULT_INCARNATIONS_MAX", 0)
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    assert status.complete
    assert status.concluded is None
    assert "no room for 1 incarnation;" in status.unstored
    assert core.results.signed(one.id, status.concluded) == b""
    await settled()
    assert not core.kills.looks.of("eu")
