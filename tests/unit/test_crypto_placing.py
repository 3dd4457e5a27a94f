"""A placed file is there whole or not at all, and a process that dies leaves nothing for long."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kcm_runtime.files.atomic import place, placing, sweep

CHILD = """
import sys
from pathlib import Path
from kcm_runtime.files.atomic import placing
with placing(Path(sys.argv[1]), unnamed=sys.argv[2] == "True") as file:
    file.write(b"secret")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def child(path: Path, unnamed: bool) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(unnamed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"written\n"
    return started


def finish(started: subprocess.Popen[bytes]) -> None:
    started.communicate()
    assert started.returncode == 0


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def unnamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_file_appears_at_the_end(tmp_path: Path, unnamed: bool) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        before = names(tmp_path)
        with placing(path, unnamed=unnamed) as file:
            file.write(content)
            file.flush()
            hidden = [name for name in names(tmp_path) if name not in before]
            assert len(hidden) == (0 if unnamed else 1)
            for name in hidden:
                assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert names(tmp_path) == ["file"]
        assert path.read_bytes() == content


@pytest.mark.parametrize("older", [None, b"older"])
def test_an_error_leaves_what_was_there(tmp_path: Path, unnamed: bool, older: bytes | None) -> None:
    path = tmp_path / "file"
    if older is not None:
        path.write_bytes(older)
    before = names(tmp_path)

    def fail() -> None:
        with placing(path, unnamed=unnamed) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == before
    assert older is None or path.read_bytes() == older


def test_a_file_that_must_not_be_replaced_stays(tmp_path: Path, unnamed: bool) -> None:
    path = tmp_path / "file"
    with placing(path, replace=False, unnamed=unnamed) as file:
        file.write(b"first")

    def again() -> None:
        with placing(path, replace=False, unnamed=unnamed) as file:
            file.write(b"second")

    with pytest.raises(FileExistsError):
        again()
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"first"


def test_the_mode_is_private_or_the_umasks(tmp_path: Path, unnamed: bool) -> None:
    before = os.umask(0o027)
    try:
        for private, mode in ((True, 0o600), (False, 0o640)):
            with placing(tmp_path / "file", private=private, unnamed=unnamed):
                pass
            assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_directory_is_not_replaced(tmp_path: Path, unnamed: bool) -> None:
    (tmp_path / "place").mkdir()

    def attempt() -> None:
        with placing(tmp_path / "place", unnamed=unnamed):
            pass

    with pytest.raises(OSError, match="directory"):
        attempt()
    assert names(tmp_path) == ["place"]


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path, unnamed: bool) -> None:
    started = child(tmp_path / "file", unnamed)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    left = names(tmp_path)
    assert len(left) == (0 if unnamed else 1)
    for name in left:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with placing(tmp_path / "another"):
        pass
    assert names(tmp_path) == ["another"]


def test_what_a_running_process_writes_is_not_swept(tmp_path: Path, unnamed: bool) -> None:
    started = child(tmp_path / "file", unnamed)
    with placing(tmp_path / "another"):
        pass
    finish(started)
    assert names(tmp_path) == ["another", "file"]
    assert (tmp_path / "file").read_bytes() == b"secret"


def test_only_our_own_rests_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = tmp_path / f".kcm-{'0' * 32}.part"
    kept = [f".kcm-{'1' * 31}.part", ".kcm-notes.part", f".kcm-{'2' * 32}.part.txt"]
    for name in (rest.name, *kept):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f".kcm-{'3' * 32}.part").symlink_to("kept")
    (tmp_path / f".kcm-{'4' * 32}.part").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: rest.stat().st_uid + 1)
        with placing(tmp_path / "file"):
            pass
    assert rest.exists()
    before = names(tmp_path)
    with placing(tmp_path / "file"):
        pass
    assert names(tmp_path) == sorted({*before} - {rest.name})


class Fails:
    """A step that fails as on a full disk."""

    def __init__(self, step: str, only: Callable[[int], bool] = lambda _: True) -> None:
        self.step = step
        self._real = getattr(os, step)
        self._only = only

    def __call__(self, first: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(first, int) and not self._only(first):
            return self._real(first, *rest, **named)
        raise OSError(errno.ENOSPC, "No space left on device")


def is_file(handle: int) -> bool:
    return stat.S_ISREG(os.fstat(handle).st_mode)


@pytest.mark.parametrize("older", [None, b"older"])
@pytest.mark.parametrize("step", ["write", "fsync", "link", "rename"])
def test_a_full_disk_at_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool, step: str, older: bytes | None
) -> None:
    path = tmp_path / "file"
    if older is not None:
        path.write_bytes(older)
    takes_this_step = {
        "write": True,
        "fsync": True,
        "link": unnamed,
        "rename": not unnamed or older is not None,
    }[step]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        if step == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
        else:
            patch.setattr(os, step, Fails(step, is_file))
        try:
            with placing(path, unnamed=unnamed) as file:
                file.write(b"newer")
        except OSError as error:
            assert takes_this_step
            assert error.filename == str(path)
            assert error.filename2 is None
        else:
            assert not takes_this_step
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = b"newer" if not takes_this_step else older
    assert names(tmp_path) == ([] if kept is None else ["file"])
    assert kept is None or path.read_bytes() == kept


def test_the_file_and_then_its_directory_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    path = tmp_path / "file"
    flushed = []
    real = os.fsync

    def flush(handle: int) -> None:
        real(handle)
        info = os.fstat(handle)
        there = path.exists() and path.read_bytes() == b"new"
        flushed.append((stat.S_ISDIR(info.st_mode), info.st_size if is_file(handle) else 0, there))

    monkeypatch.setattr(os, "fsync", flush)
    with placing(path, unnamed=unnamed) as file:
        file.write(b"new")
    assert flushed == [(False, 3, False), (True, 0, True)]


def test_a_flush_of_the_directory_that_fails_is_an_error(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(directory))

    with pytest.raises(OSError, match="Input") as info:
        place(tmp_path / "file", b"new", sync=fail)
    assert info.value.filename == str(tmp_path)
    assert names(tmp_path) == ["file"]


def test_where_a_directory_is_missing_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as info:
        place(tmp_path / "missing" / "file", b"new")
    assert info.value.filename == str(tmp_path / "missing" / "file")


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    def attempt() -> None:
        with placing(tmp_path / "file"):
            (tmp_path / "other").read_bytes()

    with pytest.raises(FileNotFoundError) as info:
        attempt()
    assert info.value.filename == str(tmp_path / "other")


def test_many_files_are_swept_and_flushed_once(tmp_path: Path) -> None:
    rest = tmp_path / f".kcm-{'0' * 32}.part"
    rest.write_bytes(b"x")
    for name in ("one", "two"):
        with placing(tmp_path / name, sync=None):
            pass
    assert rest.exists()
    sweep(tmp_path)
    assert names(tmp_path) == ["one", "two"]
