"""What is damaged or lost in one of the two key stores is healed from the other one."""

import asyncio
import shutil

import pytest
from kcm_core.keys.file_store import FileKeyStore
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.unit.core_rig import signed
from tests.unit.keystore_records import SUBJECT, files, keys, lay, only_file


async def test_a_bucket_that_was_rolled_back_is_brought_up_again(world):
    store = world.core().store
    await store.put_root(keys(1))
    old = world.bus.stream.stored[SUBJECT]
    await store.put_root(keys(2))
    world.bus.stream.stored[SUBJECT] = old
    assert await world.core().store.root("acme") == keys(2)  # one that has seen nothing yet
    assert world.bus.stream.stored[SUBJECT][1] == signed(Kind.ROOT_KEYS, keys(2), "core-eu")


async def test_a_second_store_that_lost_a_record_gets_it_back(world):
    store = world.core().store
    await store.put_root(keys(1))
    shutil.rmtree(world.directory / "root.acme")
    assert await store.root("acme") == keys(1)
    assert len(files(world)) == 1


GARBAGE = [b"", b"\xc1", bytes(300), b"\x91" * 2_000]
"""What a flipped bit, a purge or a stranger leaves in place of a record."""


def healed(core):
    return [fields for kind, fields in core.events if kind == "store.healed"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["deleted", "no message", "zeros", "nested"])
async def test_garbage_over_a_record_is_healed_from_the_second_store(world, garbage):
    await world.core().store.put_root(keys(1))
    good = world.bus.stream.stored[SUBJECT][1]
    world.bus.stream.sequence += 1
    world.bus.stream.stored[SUBJECT] = (world.bus.stream.sequence, garbage)
    core = world.core()
    assert await core.store.root("acme") == keys(1)
    assert world.bus.stream.stored[SUBJECT][1] == good
    (told,) = healed(core)
    assert told["tenant"] == "acme"
    assert told["code"] is Code.TAMPERED
    assert "bucket" in told["detail"]
    assert await core.store.root("acme") == keys(1)
    assert len(healed(core)) == 1
    await core.store.put_root(keys(2))
    assert await world.core().store.root("acme") == keys(2)
    assert len(healed(core)) == 1


async def test_whoever_writes_over_a_record_without_end_cannot_fill_the_record(world):
    await world.core().store.put_root(keys(1))
    core, times = world.core(), 20
    for _ in range(times):
        world.bus.stream.sequence += 1
        world.bus.stream.stored[SUBJECT] = (world.bus.stream.sequence, b"junk")
        assert await core.store.root("acme") == keys(1)
    core.store.close()
    assert [one["count"] for one in healed(core)] == [1, times - 1]


async def test_a_stranger_s_record_over_a_good_one_is_healed_too(world):
    await world.core().store.put_root(keys(1))
    lay(world, keys(9), "gw-eu")
    core = world.core()
    assert await core.store.root("acme") == keys(1)
    assert len(healed(core)) == 1


async def test_two_cores_heal_the_same_garbage_at_once(world):
    await world.core().store.put_root(keys(1))
    world.bus.stream.sequence += 1
    world.bus.stream.stored[SUBJECT] = (world.bus.stream.sequence, b"\xc1")
    cores = [world.core(name) for name in ("core-eu", "core-eu-2") * 4]
    found = await asyncio.gather(*(core.store.root("acme") for core in cores))
    assert found == [keys(1)] * len(cores)


async def test_what_the_bucket_lost_comes_back_and_is_told(world):
    await world.core().store.put_root(keys(1))
    world.bus.stream.stored.clear()
    core = world.core()
    assert await core.store.root("acme") == keys(1)
    (told,) = healed(core)
    assert told["code"] is Code.OK


async def test_making_a_record_is_no_healing(world):
    core = world.core()
    await core.store.put_root(keys(1))
    await core.store.put_root(keys(2))
    assert healed(core) == []


@pytest.mark.parametrize("second", [None, b"\xc1"], ids=["nothing", "garbage"])
async def test_garbage_that_nothing_stands_behind_says_what_is_gone_and_what_to_restore(
    world, second
):
    """It is never taken for "there is none": a new root would be made over the old one."""
    world.bus.stream.sequence += 1
    world.bus.stream.stored[SUBJECT] = (world.bus.stream.sequence, b"\xc1")
    if second is not None:
        FileKeyStore(world.directory).create("root.acme", 1, second)
    store = world.core().store
    for made in (store.root("acme"), store.put_root(keys(1))):
        with pytest.raises(KcmError) as info:
            await made
        assert info.value.code is Code.UNAVAILABLE
        assert "restore the second key store" in info.value.detail
        assert "kcm-keys" in info.value.detail


async def test_garbage_in_the_second_store_is_healed_from_the_bucket(world):
    await world.core().store.put_root(keys(1))
    path = only_file(world)
    good = path.read_bytes()
    path.write_bytes(good[:40] + b"\x00" + good[41:])
    core = world.core()
    assert await core.store.root("acme") == keys(1)
    assert path.read_bytes() == good
    assert only_file(world) == path
    (told,) = healed(core)
    assert "second" in told["detail"]
    world.bus.stream.stored.clear()
    assert await world.core().store.root("acme") == keys(1)


async def test_a_second_store_that_cannot_be_read_is_not_written_over(world):
    """Only what was read, and is not a record, is replaced."""
    await world.core().store.put_root(keys(1))
    path = only_file(world)
    path.unlink()
    path.mkdir()
    core = world.core()
    assert await core.store.root("acme") == keys(1)
    assert path.is_dir()
    assert healed(core) == []
