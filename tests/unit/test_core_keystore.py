"""Two stores of wrapped keys: races, rollbacks, losses and crashes at every step."""

import asyncio
import shutil

import pytest
from kcm_core.keys.file_store import FileKeyStore
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.unit.core_rig import signed
from tests.unit.keystore_records import SUBJECT, files, keys, lay
from tests.unit.refusals import refused


async def test_a_record_is_in_both_stores_and_revisions_follow_each_other(world):
    store = world.core().store
    assert await store.root("acme") is None
    await store.put_root(keys(1))
    await store.put_root(keys(2))
    assert await store.root("acme") == keys(2)
    assert (
        world.bus.stream.stored[SUBJECT][1]
        == FileKeyStore(world.directory).latest("root.acme").data
    )
    for stale in (1, 2, 4):
        assert await refused(store.put_root(keys(stale))) is Code.CONFLICT
    assert files(world) == [f"root.acme/{n:020d}" for n in (1, 2)]


@pytest.mark.parametrize("revision", [1, 2])
async def test_of_many_that_make_a_revision_at_once_one_does_and_leaves_no_other(world, revision):
    """Nothing of those that lost stays behind: in the second store it could outrank the winner."""
    first = world.core().store
    for done in range(1, revision):
        await first.put_root(keys(done))
    cores = [world.core(name).store for name in ("core-eu", "core-eu-2") * 4]
    made = [keys(revision, current=n + 1) for n in range(len(cores))]
    results = await asyncio.gather(
        *(store.put_root(one) for store, one in zip(cores, made, strict=True)),
        return_exceptions=True,
    )
    won = [one for one, result in zip(made, results, strict=True) if result is None]
    assert len(won) == 1
    assert {r.code for r in results if r is not None} == {Code.CONFLICT}
    assert len(files(world)) == revision
    for store in cores:
        assert await store.root("acme") == won[0]
    world.bus.stream.stored.clear()  # the bucket is lost
    assert await world.core().store.root("acme") == won[0]


@pytest.mark.parametrize("step", range(8))
async def test_after_a_crash_at_any_step_everybody_goes_on_with_one_record(world, step):
    """The store dies before its nth operation; then two other Cores come and make the same."""
    count = 0

    async def dies(operation, subject):
        nonlocal count
        count += 1
        if count > step:
            raise TimeoutError

    world.bus.stream.before = dies
    try:
        await world.core().store.put_root(keys(1, current=7))
        survived = True
    except KcmError as error:
        assert error.code is Code.UNAVAILABLE
        survived = False

    async def lives(operation, subject):
        pass

    world.bus.stream.before = lives
    there = bool(files(world))
    assert there or not survived
    second, third = world.core("core-eu-2").store, world.core().store
    if not there:
        await second.put_root(keys(1, current=8))
    found = await second.root("acme")
    assert found.current == (7 if there else 8)
    assert await third.root("acme") == found
    await third.put_root(keys(2))
    assert len(files(world)) == 2


async def test_an_answer_that_was_lost_does_not_make_a_second_record(world):
    store = world.core().store
    stream = world.bus.stream
    publish, lost = stream.publish, []

    async def stored_but_not_told(subject, body, headers=None):
        ack = await publish(subject, body, headers)
        if not lost:
            lost.append(ack)
            raise TimeoutError
        return ack

    stream.publish = stored_but_not_told
    assert await refused(store.put_root(keys(1))) is Code.UNAVAILABLE
    assert await store.root("acme") == keys(1)
    await store.put_root(keys(2))
    assert await world.core().store.root("acme") == keys(2)


async def test_what_this_process_has_seen_does_not_go_back_though_both_stores_do(world):
    store = world.core().store
    await store.put_root(keys(1))
    old = world.bus.stream.stored[SUBJECT]
    await store.put_root(keys(2))
    world.bus.stream.stored[SUBJECT] = old
    (world.directory / "root.acme" / f"{2:020d}").unlink()
    assert await refused(store.root("acme")) is Code.UNAVAILABLE
    world.bus.stream.stored.clear()
    (world.directory / "root.acme" / f"{1:020d}").unlink()
    assert await refused(store.root("acme")) is Code.UNAVAILABLE


async def test_a_second_store_that_is_gone_keeps_nobody_from_reading_and_everybody_from_making(
    world,
):
    store = world.core().store
    await store.put_root(keys(1))
    shutil.rmtree(world.directory)
    assert await store.root("acme") == keys(1)
    assert await refused(store.put_root(keys(2))) is Code.UNAVAILABLE
    world.bus.stream.stored.clear()
    assert await refused(store.root("acme")) is Code.UNAVAILABLE  # not "there is none"


@pytest.mark.parametrize(
    ("record", "signer"),
    [
        (keys(1, tenant="bcme"), "core-eu"),
        (keys(1, region="us"), "core-us"),
        (keys(1), "core-us"),
        (keys(1), "gw-eu"),
        (keys(1), "admin"),
        (keys(1), "stranger"),
    ],
    ids=["another tenant's", "another region's", "a foreign Core", "a Gateway", "an operator", "?"],
)
async def test_what_is_not_signed_by_a_core_for_this_place_is_not_served(world, record, signer):
    lay(world, record, signer)
    assert await refused(world.core().store.root("acme")) is Code.UNAVAILABLE
    world.bus.stream.stored.clear()
    data = signed(Kind.ROOT_KEYS, record, signer)
    (world.directory / "root.acme").mkdir(exist_ok=True)
    (world.directory / "root.acme" / f"{1:020d}").write_bytes(data)
    assert await refused(world.core().store.root("acme")) is Code.UNAVAILABLE


async def test_a_file_that_says_another_revision_than_its_name_is_not_believed(world):
    store = world.core().store
    await store.put_root(keys(1))
    await store.put_root(keys(2))
    old = (world.directory / "root.acme" / f"{1:020d}").read_bytes()
    (world.directory / "root.acme" / f"{9:020d}").write_bytes(old)
    assert await store.root("acme") == keys(2)
    assert await refused(store.put_root(keys(3))) is Code.UNAVAILABLE
    world.bus.stream.stored.clear()
    assert await refused(store.root("acme")) is Code.UNAVAILABLE


async def test_two_records_of_one_revision_are_an_incident(world):
    await world.core().store.put_root(keys(1))
    lay(world, keys(1, current=9), "core-eu-2")
    assert await refused(world.core().store.root("acme")) is Code.UNAVAILABLE


async def test_a_record_that_the_bucket_acknowledged_and_does_not_have_is_not_in_both_stores(world):
    world.bus.stream.forgets.add(SUBJECT)
    store = world.core().store
    with pytest.raises(KcmError, match="restart the broker") as info:
        await store.put_root(keys(1))
    assert info.value.code is Code.UNAVAILABLE
    assert await store.root("acme") == keys(1)  # the second store has it, so nothing is dark
    world.bus.stream.forgets.clear()
    assert await store.root("acme") == keys(1)
    assert SUBJECT in world.bus.stream.stored
