"""Holds on a Core's disk."""

import asyncio
import errno
import stat
import subprocess
import sys

import pytest
from kcm_killswitch.replica import hold_store
from kcm_killswitch.replica.hold_store import FileHoldStore, write_hold
from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import sync_directory

ID, OTHER = b"a" * 16, b"b" * 16


async def test_what_was_kept_is_recalled_in_its_latest_state(tmp_path):
    files = FileHoldStore(tmp_path / "state" / "holds")
    assert files.recall() == []
    files.remember(ID, b"held")
    files.remember(OTHER, b"another")
    files.remember(ID, b"lifted")
    await files.close()
    assert sorted(FileHoldStore(tmp_path / "state" / "holds").recall()) == [b"another", b"lifted"]


async def test_a_file_that_was_not_finished_is_nobody_s_word(tmp_path):
    files = FileHoldStore(tmp_path)
    files.remember(ID, b"held")
    await files.close()
    (tmp_path / f".kcm-{OTHER.hex()}.part").write_bytes(b"half a sta")
    assert FileHoldStore(tmp_path).recall() == [b"held"]
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID.hex()}.hold"]


async def test_nobody_else_may_look_into_the_directory(tmp_path):
    FileHoldStore(tmp_path / "holds").recall()
    assert stat.S_IMODE((tmp_path / "holds").stat().st_mode) == 0o700


def test_who_cannot_read_what_it_knew_does_not_go_on(tmp_path):
    (tmp_path / "holds").write_text("a file where a directory has to be")
    with pytest.raises(ConfigError, match="keeps known holds"):
        FileHoldStore(tmp_path / "holds").recall()


class Disk:
    """A disk that fails as it is told to, and else writes."""

    def __init__(self) -> None:
        self.faults: dict[bytes, int] = {}
        """By hold, the error that writing it has."""
        self.sync_fault = 0
        self.writes: list[bytes] = []

    def write(self, path, content):
        hold_id = bytes.fromhex(path.stem)
        self.writes.append(hold_id)
        if number := self.faults.get(hold_id):
            raise OSError(number, "text of the system")
        write_hold(path, content)

    def sync(self, path):
        if self.sync_fault:
            raise OSError(self.sync_fault, "text of the system")
        sync_directory(path)


class Kept:
    """Hold files over such a disk, and what they told."""

    def __init__(self, path):
        self.directory = path
        self.disk = Disk()
        self.files = FileHoldStore(path, write=self.disk.write, sync=self.disk.sync)
        self.told = []
        self.files.listen(lambda hold_id: self.told.append((hold_id, self.why(hold_id))))
        self.files.recall()

    def why(self, hold_id):
        trouble = self.files.unkept.get(hold_id)
        return "" if trouble is None else trouble.text


@pytest.fixture
async def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(hold_store, "RETRY_S", 0.01)
    monkeypatch.setattr(hold_store, "RETRY_MAX_S", 0.02)
    made = Kept(tmp_path / "holds")
    yield made
    await made.files.close()


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a thread writes, and tells nobody here
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "quota reached"),
        (errno.EROFS, "read only"),
        (errno.EIO, "disk error"),
        (errno.EACCES, "not permitted"),
        (errno.ENOENT, "directory missing"),
        (errno.ELOOP, "cannot write"),
    ],
)
async def test_a_write_that_failed_once_is_tried_again_until_it_is_done(kept, number, text):
    """A disk that is full for a moment must not cost a hold for good."""
    kept.disk.faults[ID] = number
    kept.files.remember(ID, b"held")
    await until(lambda: kept.disk.writes.count(ID) >= 3)
    assert kept.why(ID) == text
    assert not kept.files.kept(ID, b"held")
    assert kept.told == [(ID, text)], "told once, however often it is tried"
    del kept.disk.faults[ID]
    await until(lambda: kept.files.kept(ID, b"held"))
    assert kept.told == [(ID, text), (ID, "")]
    assert kept.files.recall() == [b"held"]


async def test_one_bad_file_keeps_no_other_hold_from_the_disk(kept):
    kept.disk.faults[ID] = errno.EIO
    kept.files.remember(ID, b"bad")
    kept.files.remember(OTHER, b"good")
    await until(lambda: kept.files.kept(OTHER, b"good"))
    await until(lambda: kept.disk.writes.count(ID) >= 2)
    assert dict(kept.told) == {ID: "disk error", OTHER: ""}
    assert kept.disk.writes.count(OTHER) == 1
    assert kept.files.recall() == [b"good"]


async def test_another_reason_is_told_again(kept):
    kept.disk.faults[ID] = errno.ENOSPC
    kept.files.remember(ID, b"held")
    await until(lambda: kept.told)
    kept.disk.faults[ID] = errno.EROFS
    await until(lambda: len(kept.told) == 2)
    assert kept.told == [(ID, "disk full"), (ID, "read only")]


async def test_what_is_not_in_the_directory_for_good_is_not_kept(kept):
    """Without it, a power cut may take the name of a file that was written."""
    kept.disk.sync_fault = errno.EIO
    kept.files.remember(ID, b"held")
    await until(lambda: kept.told)
    assert kept.told == [(ID, "disk error")]
    kept.disk.sync_fault = 0
    await until(lambda: kept.files.kept(ID, b"held"))


async def test_a_later_statement_takes_the_place_of_one_that_failed(kept):
    kept.disk.faults[ID] = errno.ENOSPC
    kept.files.remember(ID, b"held")
    await until(lambda: kept.told)
    kept.files.remember(ID, b"lifted")
    del kept.disk.faults[ID]
    await until(lambda: kept.files.kept(ID, b"lifted"))
    assert not kept.files.kept(ID, b"held")
    assert kept.files.recall() == [b"lifted"]


async def test_a_fault_that_is_none_of_the_disks_ends_nothing(kept):
    faults = [ValueError("a fault")]

    def write(path, content):
        if faults:
            raise faults[0]
        write_hold(path, content)

    files = FileHoldStore(kept.directory, write=write)
    files.remember(ID, b"held")
    await until(lambda: ID in files.unkept)
    faults.clear()
    await until(lambda: files.kept(ID, b"held"))
    await files.close()


async def test_what_was_recalled_is_kept(kept):
    kept.files.remember(ID, b"held")
    await until(lambda: kept.told)
    again = FileHoldStore(kept.directory)
    assert not again.kept(ID, b"held")
    again.recall()
    assert again.kept(ID, b"held")
    assert not again.kept(ID, b"something else")


async def test_a_process_that_ends_does_not_wait_for_a_disk_that_stays_full(kept):
    kept.disk.faults[ID] = errno.ENOSPC
    kept.files.remember(ID, b"held")
    await until(lambda: kept.told)
    async with asyncio.timeout(1):
        await kept.files.close()
    assert set(kept.files.unkept) == {ID}


async def test_a_directory_that_was_away_for_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(hold_store, "RETRY_S", 0.01)
    files = FileHoldStore(tmp_path / "holds")
    files.recall()
    (tmp_path / "holds").rename(tmp_path / "away")
    files.remember(ID, b"held")
    await until(lambda: ID in files.unkept)
    (tmp_path / "away").rename(tmp_path / "holds")
    await until(lambda: files.kept(ID, b"held"))
    await files.close()
    assert files.recall() == [b"held"]


def test_a_file_that_could_not_be_finished_leaves_the_one_before_and_no_other(tmp_path):
    """A real limit of the system, in a process of its own: a file may have 8 bytes."""
    path = tmp_path / "one.hold"
    write_hold(path, b"before")
    script = (
        "import resource, signal, sys, pathlib\n"
        "from kcm_killswitch.replica.hold_store import write_hold\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))\n"
        "try:\n"
        "    write_hold(pathlib.Path(sys.argv[1]), b'much too long')\n"
        "except OSError as error:\n"
        "    sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == errno.EFBIG
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["one.hold"]


class OnceFailing:
    """An archive that cannot be written once."""

    def __init__(self) -> None:
        self.has: dict[bytes, bytes] = {}
        self.fails = 1

    def put(self, statements):
        if self.fails:
            self.fails -= 1
            raise OSError(errno.ENOSPC, "full")
        self.has |= statements

    def get(self, hold_ids):
        return {one: self.has[one] for one in hold_ids if one in self.has}

    def between(self, least, most, count):
        return {}


async def test_what_could_not_be_archived_stays_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(hold_store, "RETRY_S", 0.001)
    archive = OnceFailing()
    files = FileHoldStore(tmp_path, archive=archive)
    files.remember(ID, b"lifted")
    files.archive(ID, b"lifted")
    assert files.archived([ID]) == {ID: b"lifted"}
    done = asyncio.Event()
    files.listen(lambda _: done.set() if not files.archiving(ID) else None)
    await asyncio.wait_for(done.wait(), 30)
    assert archive.has == {ID: b"lifted"}
    await files.close()
    assert FileHoldStore(tmp_path).recall() == []


async def test_a_hold_that_is_in_force_again_keeps_its_file(tmp_path):
    files = FileHoldStore(tmp_path)
    files.remember(ID, b"lifted")
    files.archive(ID, b"lifted")
    assert not files.kept(ID, b"lifted")
    files.remember(ID, b"held")
    await files.close()
    assert FileHoldStore(tmp_path).recall() == [b"held"]
