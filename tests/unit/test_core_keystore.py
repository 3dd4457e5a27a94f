"""Two stores of wrapped keys: races, rollbacks, losses and crashes at every step."""

import asyncio
import errno
import shutil
import sys
import threading
from pathlib import Path

import pytest
from kcm_core.keys.file_store import FileKeyStore, Stored
from kcm_runtime.files.atomic import sync_directory
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.unit import trust_rig
from tests.unit.core_rig import World, signed

SUBJECT = subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme")


def keys(revision=1, region="eu", **changes):
    return trust_rig.root_keys(region).model_copy(update={"revision": revision, **changes})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def files(world):
    found = (path for path in world.directory.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(world.directory)) for path in found)


async def refused(awaitable, code):
    with pytest.raises(KcmError) as info:
        await awaitable
    assert info.value.code is code


def lay(world, record, signer="core-eu", subject=SUBJECT):
    world.bus.stream.sequence += 1
    data = signed(Kind.ROOT_KEYS, record, signer)
    world.bus.stream.stored[subject] = (world.bus.stream.sequence, data)


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
        await refused(store.put_root(keys(stale)), Code.CONFLICT)
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
    await refused(store.put_root(keys(1)), Code.UNAVAILABLE)
    assert await store.root("acme") == keys(1)
    await store.put_root(keys(2))
    assert await world.core().store.root("acme") == keys(2)


async def test_a_bucket_that_was_rolled_back_is_brought_up_again(world):
    store = world.core().store
    await store.put_root(keys(1))
    old = world.bus.stream.stored[SUBJECT]
    await store.put_root(keys(2))
    world.bus.stream.stored[SUBJECT] = old
    assert await world.core().store.root("acme") == keys(2)  # one that has seen nothing yet
    assert world.bus.stream.stored[SUBJECT][1] == signed(Kind.ROOT_KEYS, keys(2), "core-eu")


async def test_what_this_process_has_seen_does_not_go_back_though_both_stores_do(world):
    store = world.core().store
    await store.put_root(keys(1))
    old = world.bus.stream.stored[SUBJECT]
    await store.put_root(keys(2))
    world.bus.stream.stored[SUBJECT] = old
    (world.directory / "root.acme" / f"{2:020d}").unlink()
    await refused(store.root("acme"), Code.UNAVAILABLE)
    world.bus.stream.stored.clear()
    (world.directory / "root.acme" / f"{1:020d}").unlink()
    await refused(store.root("acme"), Code.UNAVAILABLE)


async def test_a_second_store_that_lost_a_record_gets_it_back(world):
    store = world.core().store
    await store.put_root(keys(1))
    shutil.rmtree(world.directory / "root.acme")
    assert await store.root("acme") == keys(1)
    assert len(files(world)) == 1


async def test_a_second_store_that_is_gone_keeps_nobody_from_reading_and_everybody_from_making(
    world,
):
    store = world.core().store
    await store.put_root(keys(1))
    shutil.rmtree(world.directory)
    assert await store.root("acme") == keys(1)
    await refused(store.put_root(keys(2)), Code.UNAVAILABLE)
    world.bus.stream.stored.clear()
    await refused(store.root("acme"), Code.UNAVAILABLE)  # not "there is none"


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
    await refused(world.core().store.root("acme"), Code.UNAVAILABLE)
    world.bus.stream.stored.clear()
    data = signed(Kind.ROOT_KEYS, record, signer)
    (world.directory / "root.acme").mkdir(exist_ok=True)
    (world.directory / "root.acme" / f"{1:020d}").write_bytes(data)
    await refused(world.core().store.root("acme"), Code.UNAVAILABLE)


async def test_a_file_that_says_another_revision_than_its_name_is_not_believed(world):
    store = world.core().store
    await store.put_root(keys(1))
    await store.put_root(keys(2))
    old = (world.directory / "root.acme" / f"{1:020d}").read_bytes()
    (world.directory / "root.acme" / f"{9:020d}").write_bytes(old)
    assert await store.root("acme") == keys(2)
    await refused(store.put_root(keys(3)), Code.UNAVAILABLE)
    world.bus.stream.stored.clear()
    await refused(store.root("acme"), Code.UNAVAILABLE)


async def test_two_records_of_one_revision_are_an_incident(world):
    await world.core().store.put_root(keys(1))
    lay(world, keys(1, current=9), "core-eu-2")
    await refused(world.core().store.root("acme"), Code.UNAVAILABLE)


def test_writers_at_the_same_moment_do_not_touch_each_others_file(tmp_path):
    """Threads of one process, and processes with the same number on two machines."""
    directory = FileKeyStore(tmp_path)
    barrier, results = threading.Barrier(8), []

    def write(number):
        barrier.wait()
        try:
            directory.create("root.acme", 1, bytes([number]) * 100_000)
            results.append(number)
        except KcmError as error:
            assert error.code is Code.CONFLICT

    for _ in range(20):
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = results
        assert directory.latest("root.acme").data == bytes([winner]) * 100_000
        (path,) = (tmp_path / "root.acme").iterdir()
        path.unlink()
        results.clear()


def test_a_directory_that_never_was_stops_the_start(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileKeyStore(tmp_path / "nowhere")


GARBAGE = [b"", b"\xc1", bytes(300), b"\x91" * 2_000]
"""What a flipped bit, a purge or a stranger leaves in place of a record."""


def only_file(world):
    """Of the second store, however it names what it keeps."""
    (path,) = [path for path in world.directory.rglob("*") if path.is_file()]
    return path


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


def test_files_of_the_earlier_layout_are_taken_in_and_replace_nothing(tmp_path):
    FileKeyStore(tmp_path).create("root.acme", 2, b"new")
    for name in (f"root.acme@{1:020d}", f"root.acme@{2:020d}", f"service.acme.crm@{7:020d}"):
        (tmp_path / name).write_bytes(name.encode())
    directory = FileKeyStore(tmp_path)
    assert directory.latest("root.acme").data == b"new"
    assert directory.latest("service.acme.crm").revision == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.acme", "service.acme.crm"]


_listed: list[str] = []
_noting = False


def _hear(event, arguments):
    if _noting and event in ("os.listdir", "os.scandir"):
        place = arguments[0]
        if isinstance(place, int):
            place = Path(f"/proc/self/fd/{place}").readlink()
        _listed.append(str(place))


async def test_reading_and_making_a_record_looks_at_no_other_tenants_files(world):
    """Only a record's own directory is listed: what others have does not count."""
    global _noting  # noqa: PLW0603 - an audit hook is for ever
    for number in range(50):
        FileKeyStore(world.directory).create(f"root.other-{number}", 1, b"")
    store = world.core().store
    sys.addaudithook(_hear)
    _listed.clear()
    _noting = True
    try:
        assert await store.root("acme") is None
        await store.put_root(keys(1))
        assert await store.root("acme") == keys(1)
    finally:
        _noting = False
    assert set(_listed) == {str(world.directory / "root.acme")}


def test_a_name_that_a_power_cut_may_take_is_not_believed_to_stay(tmp_path):
    """The flush of the directory failed once: nobody may build on the record before it is done."""
    faults = [OSError(errno.EIO, "text"), OSError(errno.EIO, "text")]

    def flush(path):
        if faults and path != tmp_path:
            raise faults.pop()
        sync_directory(path)

    store = FileKeyStore(tmp_path, flush)
    with pytest.raises(KcmError) as info:
        store.create("root.acme", 1, b"keys")
    assert info.value.code is Code.UNAVAILABLE
    with pytest.raises(KcmError) as info:
        store.latest("root.acme")
    assert info.value.code is Code.UNAVAILABLE
    assert store.latest("root.acme") == Stored(1, b"keys")
    with pytest.raises(KcmError) as info:
        store.create("root.acme", 1, b"keys")
    assert info.value.code is Code.CONFLICT
