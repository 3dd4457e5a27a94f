"""The second key store's files: who writes them, what they are named, and what is read."""

import errno
import sys
import threading
from pathlib import Path

import pytest
from kcm_core.keys.file_store import FileKeyStore, Stored
from kcm_runtime.files.atomic import sync_directory
from kcm_schemas.codes import Code, KcmError

from tests.unit.keystore_records import keys


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
