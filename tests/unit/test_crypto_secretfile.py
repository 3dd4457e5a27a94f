"""Secrets in files: only of this user or root, only of the right size, never half read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kcm_runtime.files.secret_file import SecretFileError, check_access, read_secret, write_secret

SECRET = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "secret"
    made.write_bytes(SECRET)
    made.chmod(0o600)
    return made


def buffer(size: int = 32) -> memoryview:
    return memoryview(bytearray(b"\xaa" * size))


def refused(path: Path, text: str) -> None:
    out = buffer()
    with pytest.raises(SecretFileError, match=text) as caught:
        read_secret(str(path), out)
    assert str(path) in str(caught.value)
    assert SECRET not in out.tobytes()


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_reads_what_only_its_owner_may(path: Path, mode: int) -> None:
    path.chmod(mode)
    out = buffer()
    read_secret(str(path), out)
    assert out == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o610, 0o644, 0o666, 0o777])
def test_refuses_what_others_may(path: Path, mode: int) -> None:
    path.chmod(mode)
    refused(path, "chmod 600")


def test_the_groups_right_is_systemds_only_on_roots_own_files() -> None:
    def stat_of(uid: int, gid: int, mode: int) -> os.stat_result:
        return os.stat_result((0o100000 | mode, 1, 1, 1, uid, gid, 32, 0, 0, 0))

    me = os.geteuid()
    check_access("p", stat_of(0, 0, 0o440))
    check_access("p", stat_of(me, 1234, 0o400))
    for uid, gid, mode in ((0, 1234, 0o440), (0, 0, 0o460), (0, 0, 0o444), (0, 0, 0o450)):
        with pytest.raises(SecretFileError, match="chmod"):
            check_access("p", stat_of(uid, gid, mode))


def test_refuses_another_users_file() -> None:
    stat = os.stat_result((0o100600, 1, 1, 1, os.geteuid() + 4321, 0, 32, 0, 0, 0))
    with pytest.raises(SecretFileError, match="another user"):
        check_access("p", stat)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_refuses_another_size(path: Path, size: int) -> None:
    path.write_bytes(b"\x07" * size)
    refused(path, f"{size} bytes, not 32")


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "No such file")


def test_refuses_a_directory(tmp_path: Path) -> None:
    refused(tmp_path, "not a file")


def test_refuses_a_pipe_without_waiting_for_its_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    refused(pipe, "not a file")


def test_writes_a_new_file_of_mode_600(tmp_path: Path) -> None:
    path = tmp_path / "new"
    before = os.umask(0)
    try:
        write_secret(str(path), memoryview(SECRET))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    out = buffer()
    read_secret(str(path), out)
    assert out == SECRET


def test_refuses_to_overwrite(path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_secret(str(path), memoryview(bytes(32)))
    assert path.read_bytes() == SECRET


def test_refuses_to_write_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_secret(str(link), memoryview(SECRET))
    assert not (tmp_path / "target").exists()


def test_what_could_not_be_written_is_removed(tmp_path: Path) -> None:
    """A limit on the size of files makes the write fall short, as a full disk does."""
    path = tmp_path / "short"
    code = (
        "import resource, signal, sys\n"
        "from kcm_runtime.files.secret_file import SecretFileError, write_secret\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "try:\n"
        "    write_secret(sys.argv[1], memoryview(bytes(range(32))))\n"
        "except SecretFileError as error:\n"
        "    sys.exit('not whole' if 'completely' in str(error) else 'another error')\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "not whole", done.stderr
    assert not path.exists()


def test_who_is_killed_while_a_secret_is_written_leaves_none(tmp_path: Path) -> None:
    """A key that is cut short would be taken for one, or be in the way of a new one."""
    code = (
        "import os, signal, sys\n"
        "from kcm_runtime.files.secret_file import write_secret\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_secret(sys.argv[1], memoryview(bytes(range(32))))\n"
    )
    path = tmp_path / "secret"
    done = subprocess.run([sys.executable, "-B", "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
    write_secret(str(path), memoryview(SECRET))
